"""Torch-free generation of long videos from a bundle."""
