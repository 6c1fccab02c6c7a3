"""The reverse process on arrays: schedules, samplers, conditions, guidance and noise.

Knows NumPy only: no session, no file, no pixel, no progress.
"""
