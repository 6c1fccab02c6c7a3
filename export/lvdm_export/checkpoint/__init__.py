"""Trained weights: read as data, mapped to networks by their keys, checked.

Knows files and keys; nothing it reads is imported or executed, and it knows no graph.
"""
