"""Networks as ONNX graphs: wrapped, measured, exported and stored.

Knows torch, ONNX and the facts of a bundle's graph; nothing of checkpoints or configs.
"""
