"""Which plans and kernels this user has compiled: their sha256, in the user's own folder.

A sidecar travels with its plan, so it says nothing of who made both; a bundle that was downloaded
with an `engines` directory would vouch for itself.
"""

from pathlib import Path

from lvdm_engines.backends.user_folders import state_folder


def vouch(sha256: str) -> None:
    """Remember what was compiled here. Raises OSError."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / sha256).touch()


def is_vouched(sha256: str) -> bool:
    """Tell whether this user has compiled what has this sha256."""
    return (_folder() / sha256).is_file()


def _folder() -> Path:
    return state_folder() / "plans"
