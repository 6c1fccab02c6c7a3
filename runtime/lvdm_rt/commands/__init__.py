"""What each command of `lvdm-rt` does: an edge over the library.

Knows files, names and messages; nothing here parses flags, prints or exits.
"""
