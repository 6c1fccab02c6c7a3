"""A few cases of every kind; `make fuzz MINUTES=30` tries them by the thousand."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toy_files import with_tests_on_path

child = pytest.importorskip("fuzz.child", reason="needs fork")


@pytest.mark.slow
def test_whatever_is_damaged_there_is_a_result_or_one_line():
    pytest.importorskip("torch")
    script = Path(__file__).with_name("fuzzing.py")
    words = [sys.executable, str(script), "--daily"]
    done = subprocess.run(words, capture_output=True, text=True, env=with_tests_on_path())
    assert done.returncode == 0, done.stdout + done.stderr


BAD_ENDS = {
    "ended by signal 11": lambda: os.kill(os.getpid(), signal.SIGSEGV) or 0,
    "no line": lambda: 1,
    "2 lines": lambda: os.write(2, b"a\nb\n") and 1,
    "a traceback": lambda: int("x"),
    "characters that no terminal shows": lambda: os.write(2, b"\x1b[31m") and 1,
    "an error that is too long": lambda: os.write(2, b"x" * 5000) and 1,
    "out of memory": lambda: os.write(2, b"out of memory") and 1,
    "exit code 99": lambda: len(bytearray(3 << 30)),  # for which there is no memory
}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("what", BAD_ENDS)
def test_every_bad_end_is_a_finding(tmp_path, what):
    assert what in child.run(BAD_ENDS[what], tmp_path).findings()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_result_or_one_line_is_none(tmp_path):
    assert child.run(lambda: 0, tmp_path).findings() == []
    assert child.run(lambda: os.write(2, b"one line\n") and 1, tmp_path).findings() == []
