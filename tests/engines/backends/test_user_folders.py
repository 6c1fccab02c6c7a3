import logging
import os

import pytest

from lvdm_engines.backends import user_folders
from lvdm_engines.backends.user_folders import cache_folder, keep_cached, read_cached, state_folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/lvdm-rt"


def test_what_is_kept_is_read_again(folder):
    assert read_cached("kind/thing") is None
    keep_cached("kind/thing", b"two\nlines")
    keep_cached("kind/thing", b"three\nlines\n")
    assert read_cached("kind/thing") == b"three\nlines\n"
    assert [path.name for path in (folder / "kind").iterdir()] == ["thing"]


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b""])
def test_what_is_not_whole_is_not_read(folder, damage):
    keep_cached("thing", b"data")
    file = folder / "thing"
    file.write_bytes(damage(file.read_bytes()))
    assert read_cached("thing") is None


def test_where_nothing_can_be_written_nothing_is_kept_and_nothing_fails(folder, caplog):
    folder.parent.write_text("a file where the folder should be")
    with caplog.at_level(logging.INFO):
        keep_cached("thing", b"data")
    assert "thing: not kept" in caplog.text
    assert read_cached("thing") is None


def test_folders_are_where_the_user_says_or_below_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert state_folder() == tmp_path / "state/lvdm-rt"
    assert cache_folder() == tmp_path / ".cache/lvdm-rt"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_what_was_kept_is_not_waited_for(folder):
    folder.mkdir(parents=True)
    os.mkfifo(folder / "thing")
    assert read_cached("thing") is None


def test_what_was_kept_first_goes_where_a_folder_grows_too_large(folder, monkeypatch):
    monkeypatch.setattr(user_folders, "MOST_KEPT", 250)
    for number in range(4):
        keep_cached(f"kind/{number}", b"x")  # 67 bytes with its checksum
        os.utime(folder / f"kind/{number}", (number, number))
    keep_cached("kind/new", b"x")
    assert sorted(path.name for path in (folder / "kind").iterdir()) == ["2", "3", "new"]
