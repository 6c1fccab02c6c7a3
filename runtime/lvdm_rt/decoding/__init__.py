"""Latents to frames and back: windows, blending, and the detail of given frames.

Knows sessions and pixels; nothing of sampling, files or the caller.
"""
