"""What is read: ordinary files, and nothing else is kept open."""

import os
from pathlib import Path

import pytest

from lvdm_engines.atomic import read_file


def lowest_descriptor():
    with Path(os.devnull).open() as file:
        return file.fileno()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_ordinary_file_is_refused_and_not_kept_open(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = lowest_descriptor()
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match="it is no ordinary file"):
            read_file(path)
    assert lowest_descriptor() == before
