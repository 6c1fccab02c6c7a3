"""One owner for a directory at a time, on any system; knows nothing of what is in it."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    LOCK_FILE = ".lock"

    def acquire(folder: Path) -> int:
        """Lock a directory and return what holds the lock. Raises BlockingIOError if it is taken.

        Windows cannot lock a directory: a file inside stands for it.
        """
        holder = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(holder, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as err:
            os.close(holder)
            raise BlockingIOError(err.errno, err.strerror) from err
        return holder

else:
    LOCK_FILE = ""

    def acquire(folder: Path) -> int:
        """Lock a directory and return what holds it. Raises BlockingIOError if it is taken."""
        holder = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(holder)
            raise
        return holder


def release(holder: int) -> None:
    """Give a lock back."""
    os.close(holder)
