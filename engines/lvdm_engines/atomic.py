"""Files and directories that appear under their name whole or not at all, and stay.

Until then they have a hidden, random name beside it, opened exclusively; the name is given once
everything is on the disk and not in a cache. Knows nothing of what is written.
"""

import ctypes
import errno
import glob
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lvdm_engines import lock

_log = logging.getLogger(__name__)

DAY = 24 * 3600.0  # seconds
_WINDOWS = os.name == "nt"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` once the block has ended well. Raises OSError."""
    with whole_path(path) as part, part.open("r+b") as file:
        yield file


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Give the name of a new, empty file that replaces `path` once the block has ended well.

    Raises OSError.
    """
    part = partial_of(path)
    try:
        part.open("xb").close()
        yield part
        sync(part)
        part.replace(path)
        sync_directory(path.parent)
    except BaseException:
        remove(part)
        raise


def is_taken(path: Path) -> bool:
    """Tell whether a name has a file, or a directory that is not empty."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def why_not_replaced(path: Path) -> str | None:
    """Tell why nothing can be renamed to where this file or directory stands; None if it can.

    As far as one can know: for a mount point, and for what is another user's where they are kept.
    """
    if path.exists() and _is_mount(path):
        return "it is a mount point, which cannot be replaced; choose a name inside of it or beside"
    if path.exists() and not _WINDOWS:
        own, parent = path.stat(), path.parent.stat()
        users = {own.st_uid, parent.st_uid, 0}
        if parent.st_mode & stat.S_ISVTX and os.geteuid() not in users:
            return "it is another user's, and cannot be replaced there; choose another name"
    return None


def _is_mount(path: Path) -> bool:
    """Tell whether something is mounted there, a part of the same file system included."""
    if os.path.ismount(path):
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:  # other systems than Linux
        return False
    name = os.fsencode(os.path.realpath(path))
    for special in b"\\\t\n ":
        name = name.replace(bytes([special]), b"\\%03o" % special)
    return any(line.split(b" ")[4] == name for line in mounts)


def open_file(path: Path) -> BinaryIO:
    """Open a file to be read. Raises OSError, also for a pipe or a device, which may never end."""
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # neither is everywhere
    descriptor = os.open(path, os.O_RDONLY | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, most: int = -1) -> bytes:
    """Return what is in a file, at most so many bytes. Raises OSError as `open_file` does."""
    with open_file(path) as file:
        return file.read(most)


def partial_of(target: Path) -> Path:
    """Return a new hidden name beside `target`, where it is made until it is whole."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Give a new, hidden directory beside `target`, to be put in place; else it is removed.

    What killed processes left goes first. It is locked, so that nobody takes it for such a
    leftover. Raises OSError.
    """
    remove_leftovers(target)
    part = partial_of(target)
    holder = None if _WINDOWS else lock.made_and_locked(part)  # there a lock is a file inside
    try:
        part.mkdir(parents=True, exist_ok=True)
        yield part
    finally:
        remove(part)
        if holder is not None:
            lock.release(holder)


def remove_leftovers(target: Path, *, mine: bool = False) -> None:
    """Remove what killed processes left beside `target`, and nobody is at work on.

    Only who has locked `target` may say that all of it is `mine`.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.????????.partial"):
        with suppress(OSError):  # somebody else removes it, or works on it
            ours = left.is_file() or left.is_dir() or left.is_symlink()
            if ours and (mine or _is_abandoned(left)):
                _log.info("%s: removed, a killed process left it", left)
                remove(left)


def _is_abandoned(left: Path) -> bool:
    """Tell whether nobody has locked it; on Windows, whether nothing has touched it for a day."""
    if not left.is_symlink() and not _WINDOWS:
        lock.release(lock.acquire(left))
        return True
    times = [path.lstat().st_mtime for path in (left, *left.rglob("*"))]
    return max(times) < time.time() - DAY


def remove(path: Path) -> None:
    """Remove a file or a whole directory, as far as that can be done; no link is followed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def put_in_place(new: Path, target: Path) -> None:
    """Rename the directory `new` to `target`; what stood there goes once the new one stands."""
    if not target.exists():
        new.rename(target)
        sync_directory(target.parent)
        return
    old = new
    if not _exchange(new, target):  # then two renames, undone if the second fails
        old = new.with_suffix(".old")
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            old.rename(target)
            raise
    sync_directory(target.parent)
    _log.info("%s: replaced what was there", target)
    shutil.rmtree(old)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    rename = None if _WINDOWS else getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)


def sync(path: Path) -> None:
    """Wait until a file, or a directory and all that is in it, is on the disk. Raises OSError."""
    if path.is_dir():
        for inside in path.iterdir():
            sync(inside)
        sync_directory(path)
        return
    with path.open("r+b") as file:  # Windows syncs no file that is open to be read
        os.fsync(file.fileno())


def sync_directory(folder: Path) -> None:
    """Wait until the names in a directory are on the disk. Raises OSError."""
    if _WINDOWS:  # which has no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
