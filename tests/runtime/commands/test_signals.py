"""Signals to a process that generates: whenever they come, it ends cleanly and can go on."""

import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def wait_for_files(process, work, count):
    """Wait until a run has put more than `count` files into its work directory."""
    deadline = time.monotonic() + 30
    while not (work.is_dir() and len(list(work.rglob("*"))) > count):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_running_process_ends_it_cleanly(start, command, toy, tmp_path, kind):
    flags = (
        *("--bundle", toy, "--backend", "cpu", "--frames", "600", "--sampler", "ddpm"),
        *("--exact", "--seed", "3"),
    )
    process = start("generate", "-o", "sky.npz", *flags)
    wait_for_files(process, tmp_path / ".sky.npz.work", 3)
    process.send_signal(kind)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    opened, told = err.splitlines()
    assert opened.startswith("lvdm-rt: all graphs run on cpu")
    assert not (tmp_path / "sky.npz").exists()
    assert command(*shlex.split(told.split("lvdm-rt ")[-1]))[0] == 0
    resumed = (tmp_path / "sky.npz").read_bytes()
    assert command("generate", "-o", "sky.npz", *flags, "--force")[0] == 0
    assert (tmp_path / "sky.npz").read_bytes() == resumed


def pressed(process, times):
    """Press Ctrl-C until the run ends as it should, and return what it says."""
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (130, "", 1)
    return err


@pytest.mark.parametrize("presses", [2, 20])
def test_pressing_again_and_again_ends_no_less_cleanly(start, toy, tmp_path, presses):
    flags = ("--bundle", toy, "--frames", "600", "--sampler", "ddpm", "--seed", "3", "-q")
    process = start("generate", "-o", "sky.npz", *flags)
    wait_for_files(process, tmp_path / ".sky.npz.work", 3)
    err = pressed(process, presses)
    assert "continue with: lvdm-rt generate" in err


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a process has loaded")
@pytest.mark.parametrize("library", ["_multiarray_umath", "libavcodec", "onnxruntime_pybind11"])
def test_pressing_while_it_starts_is_neither_lost_nor_called_a_broken_installation(
    start, toy, tmp_path, library
):
    process = start("generate", "-o", "sky.npz", "--bundle", toy, "--frames", "90000", "-q")
    while library not in Path(f"/proc/{process.pid}/maps").read_text("utf-8"):
        assert process.poll() is None, process.communicate()
    assert pressed(process, 3).startswith("lvdm-rt: interrupted; ")
    assert not (tmp_path / "sky.npz").exists()


def test_a_killed_run_resumes_to_the_identical_file(start, command, toy, tmp_path):
    flags = ("-o", "sky.npz", "--bundle", toy, "--frames", "600", "--sampler", "ddpm", "--exact")
    process = start("generate", *flags)
    wait_for_files(process, tmp_path / ".sky.npz.work", 5)
    process.kill()
    process.communicate()
    code, _, err = command("generate", *flags)
    assert code == 1
    assert "resume" in err
    assert command("generate", *flags, "--resume")[0] == 0
    resumed = (tmp_path / "sky.npz").read_bytes()
    assert command("generate", *flags, "--force")[0] == 0
    assert (tmp_path / "sky.npz").read_bytes() == resumed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sky.npz", "sky.npz.json"]
