"""What each command of `lvdm-rt` does: an edge over the library.

Knows pipelines, files, messages, and flags that several commands share; nothing of networks, or how
to exit.
"""
