"""The networks of LVDM with the official parameter names.

Knows torch and shapes; nothing of files, graphs or sampling.
"""
