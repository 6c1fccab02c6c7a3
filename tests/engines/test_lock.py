"""One owner for a work directory, also where only Windows' own locks exist."""

import importlib
import os
import sys
from types import SimpleNamespace

import pytest

from lvdm_engines import lock


def test_a_directory_has_one_owner_at_a_time(tmp_path):
    first = lock.acquire(tmp_path)
    with pytest.raises(BlockingIOError):
        lock.acquire(tmp_path)
    lock.release(first)
    lock.release(lock.acquire(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_locked_where_that_needs_it_open_for_writing(tmp_path, monkeypatch):
    """As on network file systems."""
    fcntl, flock = pytest.importorskip("fcntl"), lock.fcntl.flock

    def strict(holder, how):
        if fcntl.fcntl(holder, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flock(holder, how)

    monkeypatch.setattr(lock.fcntl, "flock", strict)
    (tmp_path / "video").touch()
    first = lock.acquire(tmp_path / "video")
    with pytest.raises(BlockingIOError):
        lock.acquire(tmp_path / "video")
    lock.release(first)


def test_the_lock_of_a_directory_that_was_removed_says_so(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    first = lock.acquire(work)
    late = os.open(work, os.O_RDONLY)  # of a run that waits for the first one
    assert lock.holds(first, work)
    lock.release(first, emptied=work)
    assert not work.exists()
    assert not lock.holds(late, work)
    work.mkdir()
    assert not lock.holds(late, work)
    lock.release(late)


def test_a_directory_with_something_in_it_is_not_removed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    lock.release(lock.acquire(tmp_path), emptied=tmp_path)
    assert (tmp_path / "mine").exists()


def test_without_fcntl_a_file_inside_is_locked(tmp_path, monkeypatch):
    taken = set()

    def locking(descriptor, mode, length):
        inode = os.fstat(descriptor).st_ino
        if inode in taken:
            raise PermissionError(13, "Permission denied")
        taken.add(inode)

    windows = SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    try:
        other = importlib.reload(lock)
        holder = other.acquire(tmp_path)
        with pytest.raises(BlockingIOError):
            other.acquire(tmp_path)
        assert other.holds(holder, tmp_path)
        other.release(holder)
        assert [path.name for path in tmp_path.iterdir()] == [other.LOCK_FILE]
        taken.clear()
        other.release(other.acquire(tmp_path), emptied=tmp_path)
        assert not tmp_path.exists()
    finally:
        monkeypatch.undo()
        importlib.reload(lock)
