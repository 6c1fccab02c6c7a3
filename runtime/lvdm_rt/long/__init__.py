"""Long videos in latent space: which clips, in which order, sampled, kept and resumed.

Knows sessions and the work directory; nothing of pixels, threads or video files.
"""
