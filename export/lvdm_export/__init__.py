"""Trained PyTorch checkpoints to verified bundles; torch lives here and in the tools.

Knows checkpoints, networks and graphs; nothing of sampling or video.
"""

from importlib.metadata import version as _installed


def version() -> str:
    """Return the version of the distribution that this package belongs to."""
    return _installed("lvdm-rt")
