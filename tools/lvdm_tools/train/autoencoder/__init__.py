"""The autoencoder's training task and its losses (LVDM §3.1).

Knows frames and its own networks; nothing of denoisers or of the loop around it.
"""
