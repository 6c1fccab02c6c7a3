"""Trained PyTorch checkpoints to verified bundles; torch lives here and in the tools.

Knows checkpoints, networks and graphs; nothing of sampling or video.
"""
