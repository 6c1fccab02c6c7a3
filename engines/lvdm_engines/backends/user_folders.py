"""The folders of whoever runs this: what is remembered there, and what can be made again.

Knows names and bytes; nothing of what they stand for. A cache only saves time: whatever cannot be
read or written there is made anew.
"""

import hashlib
import logging
import os
from pathlib import Path

from lvdm_engines.atomic import read_file, whole_file

_log = logging.getLogger(__name__)

MOST_KEPT = 1 << 30  # bytes in one folder of the cache


def state_folder() -> Path:
    """Return where to remember what must not be lost. Raises RuntimeError without a home."""
    return _folder("XDG_STATE_HOME", ".local/state")


def cache_folder() -> Path:
    """Return where to keep what can be made again. Raises RuntimeError without a home."""
    return _folder("XDG_CACHE_HOME", ".cache")


def read_cached(name: str) -> bytes | None:
    """Return what was kept under a name, if it is whole."""
    try:
        file = cache_folder() / name
        digest, _, data = read_file(file).partition(b"\n")
    except (OSError, RuntimeError):
        return None
    return data if hashlib.sha256(data).hexdigest().encode() == digest else None


def keep_cached(name: str, data: bytes) -> None:
    """Keep something under a name, behind a line with its sha256, as far as that can be done."""
    try:
        file = cache_folder() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as new:
            new.write(hashlib.sha256(data).hexdigest().encode() + b"\n")
            new.write(data)
        _trim(file.parent)
    except (OSError, RuntimeError) as err:
        _log.info("%s: not kept (%s)", name, err)


def _trim(folder: Path) -> None:
    """Remove what was kept first until the rest of a folder is below the limit."""
    files = sorted(
        ((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(folder)),
        reverse=True,
    )
    total = 0
    for _, size, path in files:
        total += size
        if total > MOST_KEPT:
            Path(path).unlink(missing_ok=True)


def _folder(variable: str, below_home: str) -> Path:
    named = os.environ.get("LOCALAPPDATA" if os.name == "nt" else variable)
    return (Path(named) if named else Path.home() / below_home) / "lvdm-rt"
