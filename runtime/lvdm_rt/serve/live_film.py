"""The frames of a video while it is made: a file of fragments that grows beside the result.

Whoever comes late reads it from its start, and whoever reads slowly holds up nobody. It goes once
the job has ended; readers that have it open read on. Knows no HTTP.
"""

import logging
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from lvdm_engines.atomic import remove
from lvdm_engines.errors import VideoError
from lvdm_rt.video import Frames
from lvdm_rt.video.fragmented import FragmentedFilm

_log = logging.getLogger(__name__)


def live_path(result: Path) -> Path:
    """Return where the live film lies of a video that will be at `result`.

    By its name the store knows it for a leftover when a server starts.
    """
    return result.with_name(f".{result.stem}.live.partial")


class LiveFilm:
    """Fragments in a file; where it cannot be written, the video itself goes on without it."""

    def __init__(self, result: Path, size: tuple[int, int], fps: Fraction) -> None:
        """Make fragments of frames of `size` (height, width); nothing is there before the first."""
        self._path, self._size, self._fps = live_path(result), size, fps
        self._film: FragmentedFilm | None = None
        self._file: BinaryIO | None = None
        self._closed = False

    def add(self, frames: Frames) -> None:
        """Append frames, uint8 (f, h, w, 3)."""
        if self._closed:
            return
        try:
            if self._film is None or self._file is None:
                remove(self._path)  # a reader of what was there before keeps that
                self._film = FragmentedFilm(self._size, self._fps)
                self._file = self._path.open("xb", buffering=0)
                self._file.write(self._film.start)
            self._file.write(self._film.write(frames))
        except (OSError, VideoError) as err:
            self._closed = True
            _log.warning("%s: live pictures end here: %s", self._path.name, err)

    def end(self) -> None:
        """Append what is left, which makes it whole."""
        if self._file is None or self._film is None or self._closed:
            return
        try:
            self._file.write(self._film.close())
        except (OSError, VideoError) as err:
            _log.warning("%s: live pictures end early: %s", self._path.name, err)
        self._film = None
        self._closed = True

    def remove(self) -> None:
        """Close and remove the file."""
        if self._file is not None:
            self._file.close()
            remove(self._path)
        self._film = self._file = None
