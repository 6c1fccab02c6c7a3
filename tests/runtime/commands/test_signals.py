"""Signals to a process that generates: whenever they come, it ends cleanly and can go on."""

import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def pressed(process, kind, times):
    """Send a signal until the run ends as it should, and return what it says."""
    for _ in range(times):
        process.send_signal(kind)
        time.sleep(0.002)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (130, "", 1)
    return err


@pytest.mark.parametrize(
    ("kind", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGINT, 20)]
)
def test_signals_to_a_running_process_end_it_cleanly(start, command, toy, tmp_path, kind, times):
    flags = ("--bundle", toy, "--frames", "600", "--sampler", "ddpm", "--exact", "-q")
    process = start("generate", "-o", "sky.npz", *flags)
    deadline = time.monotonic() + 30
    while len(list((tmp_path / ".sky.npz.work").rglob("*"))) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    told = pressed(process, kind, times)
    assert not (tmp_path / "sky.npz").exists()
    assert command(*shlex.split(told.split("continue with: lvdm-rt ")[1]))[0] == 0
    resumed = (tmp_path / "sky.npz").read_bytes()
    assert command("generate", "-o", "sky.npz", *flags, "--force")[0] == 0
    assert (tmp_path / "sky.npz").read_bytes() == resumed


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a process has loaded")
@pytest.mark.parametrize("library", ["_multiarray_umath", "libavcodec", "onnxruntime_pybind11"])
def test_pressing_while_it_starts_is_neither_lost_nor_called_a_broken_installation(
    start, toy, tmp_path, library
):
    process = start("generate", "-o", "sky.npz", "--bundle", toy, "--frames", "90000", "-q")
    while library not in Path(f"/proc/{process.pid}/maps").read_text("utf-8"):
        assert process.poll() is None, process.communicate()
    assert pressed(process, signal.SIGINT, 3).startswith("lvdm-rt: interrupted; ")
    assert not (tmp_path / "sky.npz").exists()
