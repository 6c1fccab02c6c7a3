"""A file system in a file, whose copy is what a power loss leaves. Needs Linux and root."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE = "disk.img"


class NoDiskError(Exception):
    """File systems cannot be made or mounted here."""


@contextmanager
def new_disk(folder: Path) -> Iterator[Path]:
    """Make an empty file system in `folder`. Raises NoDiskError."""
    image = folder / IMAGE
    with image.open("wb") as file:
        file.truncate(64 << 20)
    _call("mkfs.ext4", "-q", "-F", image)
    with _mounted(image, folder / "disk") as place:
        _call("sync")
        yield place


@contextmanager
def after_power_loss(disk: Path, run: "subprocess.Popen[str]") -> Iterator[Path]:
    """End `run` and show what is on the disk by now, as a computer finds it that starts again."""
    if run.poll() is None:  # a copy takes a while, in which nothing may be written
        run.send_signal(signal.SIGSTOP)
        os.waitpid(run.pid, os.WUNTRACED)
    image = shutil.copy(disk.parent / IMAGE, disk.parent / "cut.img")
    run.kill()
    run.communicate()
    with _mounted(image, disk.parent / "after") as place:
        yield place


@contextmanager
def _mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    _call("mount", "-o", "loop", image, place)  # reads the journal
    try:
        yield place
    finally:
        _call("umount", place)


def _call(*command: object) -> None:
    try:
        subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    except FileNotFoundError as err:
        raise NoDiskError(f"{command[0]} is not installed") from err
    except subprocess.CalledProcessError as err:
        raise NoDiskError(f"{command[0]}: {err.stderr.strip()}") from err
