"""Videos that clients upload to be continued: read once, elsewhere, and kept as frames.

Names are the server's; of what a client calls its file only a known suffix counts.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.atomic import remove, sync, sync_directory
from lvdm_rt.request import frames_sha256
from lvdm_rt.serve.limits import ServeLimits
from lvdm_rt.serve.refusals import RefusedError

_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".gif", ".png", ".jpg", ".jpeg", ".webp", ".bmp",
)  # fmt: skip
_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT")  # of the environment
_START = 30.0  # seconds of a busy machine for a process to start


@dataclass(frozen=True)
class WantedFrames:
    """The frames that matter to a job: at most `count` of (height, width), at a rate."""

    count: int
    size: tuple[int, int]
    fps: Fraction


class ConditionReader:
    """Reads uploads, within limits."""

    def __init__(self, limits: ServeLimits) -> None:
        self._limits = limits

    def read(self, upload: Path, wanted: WantedFrames, target: Path) -> str:
        """Read the last frames of an upload into `target`, and return their sha256.

        Raises RefusedError for what is no whole video, or is too large.
        """
        part = target.with_name(f".{target.name}.partial.npy")
        try:
            self._run(upload, wanted, part)
            sha256 = frames_sha256(load_frames(part))
            sync(part)
            part.replace(target)
            sync_directory(target.parent)
        finally:
            remove(part)
        return sha256

    def _run(self, upload: Path, wanted: WantedFrames, part: Path) -> None:
        limits = self._limits
        numbers = (*wanted.size, wanted.fps, wanted.count, limits.upload_pixels)
        command = [sys.executable, "-m", "lvdm_rt.serve.reading", upload, part, *numbers]
        command += [limits.upload_seconds, limits.upload_memory]
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        try:
            done = subprocess.run(  # noqa: S603 - this very program, without a shell
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment,
                timeout=limits.upload_seconds + _START,
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise _unread("it takes too long to read") from err
        if done.returncode == 1 and done.stdout:
            told = done.stdout.decode(errors="replace").replace(str(upload), "input_reference")
            raise _unread(told.removeprefix("cannot read input_reference: "))
        if done.returncode != 0:
            raise _unread("it takes too much memory or time to read, or is damaged")


def upload_suffix(name: str | None) -> str:
    """Return the suffix with which an upload is kept."""
    suffix = Path(name or "").suffix.lower()
    return suffix if suffix in _SUFFIXES else ".film"


def load_frames(path: Path) -> NDArray[np.uint8]:
    """Return the frames that were kept."""
    frames: NDArray[np.uint8] = np.load(path, allow_pickle=False)
    return frames


def _unread(why: str) -> RefusedError:
    return RefusedError(f"input_reference: {why}", 400, "invalid_video", param="input_reference")
