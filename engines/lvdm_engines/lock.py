"""One owner for a directory at a time, on any system; knows nothing of what is in it."""

import os
from contextlib import suppress
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

    def holds(holder: int, folder: Path) -> bool:  # noqa: ARG001 - the other one needs it
        """Tell whether the directory of that name is the one that is locked."""
        return folder.exists()  # which Windows removes for nobody while a file in it is open

    def release(holder: int, emptied: Path | None = None) -> None:
        """Give a lock back, and remove the directory if it was `emptied`."""
        os.close(holder)
        if emptied is not None:
            with suppress(OSError):
                (emptied / LOCK_FILE).unlink()
                emptied.rmdir()

else:
    LOCK_FILE = ""

    def acquire(folder: Path) -> int:
        """Lock a directory and return what holds it. Raises BlockingIOError if it is taken.

        A file as well, which has to be open for writing on network file systems.
        """
        mode = os.O_RDWR if folder.is_file() else os.O_RDONLY
        holder = os.open(folder, mode | os.O_NONBLOCK)  # a pipe would be waited for
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(holder)
            raise
        return holder

    def holds(holder: int, folder: Path) -> bool:
        """Tell whether the directory of that name is the one that is locked."""
        try:
            return os.path.samestat(os.fstat(holder), folder.stat())
        except FileNotFoundError:
            return False

    def release(holder: int, emptied: Path | None = None) -> None:
        """Give a lock back, after removing the directory if it was `emptied`."""
        if emptied is not None:
            with suppress(OSError):  # something is in it that is not ours
                emptied.rmdir()
        os.close(holder)


def made_and_locked(folder: Path) -> int:
    """Make a directory, if it is not there, and lock it. Raises OSError; see `acquire`."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        holder = acquire(folder)
        if holds(holder, folder):
            return holder
        release(holder)  # its last owner has just removed it
