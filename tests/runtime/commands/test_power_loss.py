"""What is left of a video when the power goes: a file system on a loop device, cut off unsynced."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import toy_disk

FLAGS = ("--frames", "40", "--sampler", "ddpm", "--seed", "3", "-q")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            place = stack.enter_context(toy_disk.new_disk(tmp_path))
        except toy_disk.NoDiskError as err:
            pytest.skip(f"no file system can be mounted here ({err})")
        yield place


def generate(folder: Path, toy: Path, *flags: str) -> "subprocess.Popen[str]":
    code = "import sys; from lvdm_rt.cli import main; sys.argv[0] = 'lvdm-rt'; main()"
    command = [sys.executable, "-c", code, "generate", "--bundle", str(toy), *FLAGS, *flags]
    return subprocess.Popen(command, cwd=folder, text=True, stderr=subprocess.PIPE)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("out", ["sky.mp4", "sky.webm", "sky.gif", "sky.npz", "sky/"])
def test_a_video_that_was_called_written_survives(toy, disk, out):
    run = generate(disk, toy, "-o", out)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 0, said
    with toy_disk.after_power_loss(disk, run) as after:
        expected = content(disk)
        assert content(after) == expected
        assert len(expected) >= 2


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_what_was_finished(toy, disk, tmp_path):
    flags = ("-o", "sky.npz", "--frames", "600", "--exact")
    run = generate(disk, toy, *flags)
    while len(list(disk.rglob("*.npy"))) < 5:
        assert run.poll() is None
        time.sleep(0.01)
    finished = {path.name for path in disk.rglob("*.npy")}
    with toy_disk.after_power_loss(disk, run) as after:
        assert {path.name for path in after.rglob("*.npy")} >= finished
        again = generate(after, toy, *flags, "--resume")
        assert again.communicate(timeout=60)[1] == ""
        shutil.copy(after / "sky.npz", tmp_path)
    whole = generate(tmp_path, toy, *flags, "--force")
    resumed = (tmp_path / "sky.npz").read_bytes()
    assert whole.communicate(timeout=60)[1] == ""
    assert (tmp_path / "sky.npz").read_bytes() == resumed
