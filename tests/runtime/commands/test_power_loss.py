"""What is left of a video when the power goes: a file system on a loop device, cut off unsynced."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = ("--frames", "40", "--sampler", "ddpm", "--seed", "3", "-q")


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """Mount an image as a computer does that starts again: its journal is read."""
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of its own, whose image lies beside it."""
    image = tmp_path / "disk.img"
    try:
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
        with mounted(image, tmp_path / "disk") as place:
            subprocess.run(["sync"], check=True)
            yield place
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"no file system can be mounted here ({err})")


def generate(folder: Path, toy: Path, *flags: str) -> "subprocess.Popen[str]":
    code = "import sys; from lvdm_rt.cli import main; sys.argv[0] = 'lvdm-rt'; main()"
    command = [sys.executable, "-c", code, "generate", "--bundle", str(toy), *FLAGS, *flags]
    return subprocess.Popen(command, cwd=folder, text=True, stderr=subprocess.PIPE)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def power_loss(disk: Path, check: Callable[[Path], None]) -> None:
    """Copy the image as it is on the disk by now, and start again with that."""
    image = shutil.copy(disk.parent / "disk.img", disk.parent / "cut.img")
    with mounted(image, disk.parent / "after") as place:
        check(place)


@pytest.mark.parametrize("out", ["sky.mp4", "sky.webm", "sky.gif", "sky.npz", "sky/"])
def test_a_video_that_was_called_written_survives(toy, disk, out):
    run = generate(disk, toy, "-o", out)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 0, said

    def check(after: Path) -> None:
        expected = content(disk)
        assert content(after) == expected
        assert len(expected) >= 2

    power_loss(disk, check)


def test_an_interrupted_run_goes_on_with_what_was_finished(toy, disk, tmp_path):
    flags = ("-o", "sky.npz", "--frames", "600", "--exact")
    run = generate(disk, toy, *flags)
    while len(list(disk.rglob("*.npy"))) < 5:
        assert run.poll() is None
        time.sleep(0.01)

    finished = {path.name for path in disk.rglob("*.npy")}

    def check(after: Path) -> None:
        run.kill()
        run.communicate()
        assert {p.name for p in after.rglob("*.npy")} >= finished
        again = generate(after, toy, *flags, "--resume")
        assert again.communicate(timeout=60)[1] == ""
        shutil.copy(after / "sky.npz", tmp_path)

    power_loss(disk, check)
    whole = generate(tmp_path, toy, *flags, "--force")
    resumed = (tmp_path / "sky.npz").read_bytes()
    assert whole.communicate(timeout=60)[1] == ""
    assert (tmp_path / "sky.npz").read_bytes() == resumed
