"""ONNX Runtime: the backends `cpu` and `cuda`.

Knows onnxruntime; nothing of compiled plans.
"""
