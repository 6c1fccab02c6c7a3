"""The denoiser's training task: latents, masked clips, previews (LVDM §3.2, §3.3).

Knows latents and the UNet; nothing of the loop around it.
"""
