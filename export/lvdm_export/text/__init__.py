"""What models that read text need beside their networks: a text encoder and a tokenizer, found.

Knows files and their formats; nothing of graphs.
"""
