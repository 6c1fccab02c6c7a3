"""What engines need of a GPU: its driver, memory, streams, copies and shared scratch.

Knows CUDA through cuda-core; nothing of graphs, plans or bundles.
"""
