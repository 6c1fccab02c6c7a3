"""What each command of `lvdm-rt` does: an edge over the library.

Knows files, names, messages and the flags of `generate`; nothing of sessions, or how to exit.
"""
