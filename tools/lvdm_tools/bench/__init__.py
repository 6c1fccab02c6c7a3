"""How fast a machine runs our graphs, beside torch.

Knows backends and clocks; judges no quality.
"""
