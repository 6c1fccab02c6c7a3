"""Clips by number: from folders of videos, or drawn as synthetic skies.

Knows pixels; nothing of networks, losses or training.
"""
