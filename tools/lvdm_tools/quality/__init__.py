"""How good a bundle's videos are: metrics, targets and the report.

Knows clips and the runtime; nothing of training.
"""
