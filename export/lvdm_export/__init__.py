"""Trained PyTorch checkpoints to verified bundles. The only package besides the tools that uses torch."""
