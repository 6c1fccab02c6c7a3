"""TensorRT and TensorRT-RTX: plans compiled, kept, found, checked and run.

Knows both libraries and the GPU; nothing of torch or of sampling.
"""
