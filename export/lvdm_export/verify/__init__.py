"""How far a graph is from the network it came from, and a backend from the CPU.

Knows sessions and numbers; no checkpoint and no torch are needed.
"""
