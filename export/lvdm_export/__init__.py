"""Trained PyTorch checkpoints to verified bundles; torch lives here and in the tools."""
