"""Networks as ONNX graphs: wrapped, measured, exported and stored.

Knows torch and ONNX; nothing of checkpoints or bundles.
"""
