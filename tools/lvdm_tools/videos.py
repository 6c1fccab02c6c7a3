"""A folder of videos as a source of clips.

Owns reading training videos: what is usable, where clips start, cropping and resizing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import av
import numpy as np

from lvdm_engines.errors import TrainingError
from lvdm_tools.data import check_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from lvdm_tools.data import ClipSpec

logger = logging.getLogger(__name__)

# fmt: off
SUFFIXES = frozenset([
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif",
    ".mpg", ".mpeg", ".ts", ".ogv", ".wmv", ".flv", ".y4m",
])
# fmt: on
HELD_OUT_SHARE = 10  # one video in this many is held out
_TRIES = 100  # clips drawn anew before giving up on a folder whose videos turn out damaged


@dataclass(frozen=True)
class Video:
    """One usable file and the frames that clips may use: first ≤ frame < last."""

    path: Path
    first: int
    last: int


@dataclass
class VideoFolder:
    """Clips from all videos below a folder, a video drawn in proportion to its length.

    `skipped` maps each file that could not be used to the first reason; it decides nothing.
    """

    spec: ClipSpec
    seed: int
    videos: tuple[Video, ...]
    skipped: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def open(
        cls, folder: Path, spec: ClipSpec, *, seed: int = 0, held_out: bool = False
    ) -> VideoFolder:
        """Look at every video below `folder` and split off those that are held out.

        Of several videos, one in ten (the last of fewer) is held out; of one, its last fifth.

        Raises:
            TrainingError: no such folder, not readable, no video, or none that is long enough.

        """
        check_spec(spec)
        lengths, skipped = _scan(_files(folder))
        if not lengths:
            raise TrainingError(
                f"{folder} holds no readable video"
                + (f" ({len(skipped)} skipped: {_first(skipped)})" if skipped else "")
                + f"; expected files that end in {', '.join(sorted(SUFFIXES))}"
            )
        videos = tuple(v for v in _split(lengths, held_out) if v.last - v.first >= spec.span)
        if not videos:
            raise TrainingError(
                f"{folder}: no {'held-out' if held_out else 'training'} video has the {spec.span} "
                f"frames that clips of {spec.frames} at stride {spec.stride} need (the longest of "
                f"all has {max(lengths.values())}); lower frames or stride, or add longer videos"
            )
        return cls(spec, seed, videos, skipped)

    def clip(self, index: int) -> NDArray[np.uint8]:
        """Cut clip `index`: the video and its start are drawn from (seed, index).

        Raises:
            TrainingError: videos keep failing while they are read.

        """
        starts = np.cumsum([v.last - v.first - self.spec.span + 1 for v in self.videos])
        for attempt in range(_TRIES):
            rng = np.random.Generator(
                np.random.Philox(np.random.SeedSequence([self.seed, index, attempt]))
            )
            draw = int(rng.integers(starts[-1]))
            chosen = int(np.searchsorted(starts, draw, side="right"))
            video = self.videos[chosen]
            start = video.first + draw - (int(starts[chosen - 1]) if chosen else 0)
            try:
                return read_clip(video.path, start, self.spec)
            except TrainingError as err:
                # tried again for the next clip: what one clip shows must not depend on others
                if video.path not in self.skipped:
                    self.skipped[video.path] = str(err)
                    logger.warning("skipping a video (%d so far): %s", len(self.skipped), err)
        raise TrainingError(
            f"no clip could be read in {_TRIES} tries; {len(self.skipped)} of the videos are "
            f"damaged ({_first(self.skipped)}): check the data folder"
        )


def read_clip(path: Path, start: int, spec: ClipSpec) -> NDArray[np.uint8]:
    """Read the clip that begins at frame `start`: uint8 (f, h, w, 3), centre-cropped, resized.

    Raises:
        TrainingError: the file cannot be decoded, or ends too early.

    """
    wanted = range(start, start + spec.span, spec.stride)
    frames = np.empty((spec.frames, *spec.size, 3), np.uint8)
    got = 0
    try:
        with av.open(str(path)) as container:
            for number, frame in _frames_from(container, start):
                if number >= wanted[got]:
                    frames[got] = _fit(frame, spec.size)
                    got += 1
                    if got == spec.frames:
                        return frames
    except (av.FFmpegError, OSError, ValueError) as err:
        raise TrainingError(f"{path} cannot be decoded near frame {start}: {err}") from err
    raise TrainingError(
        f"{path} ended after {got} of {spec.frames} frames of the clip that begins at {start}"
    )


def _frames_from(
    container: av.container.InputContainer, start: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode numbered frames, beginning at or before `start` (at the key frame before it)."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate, base = stream.average_rate, stream.time_base
    origin = stream.start_time or 0
    per_frame = None if rate is None or base is None else 1 / (rate * base)
    if start > 0 and per_frame is not None:
        container.seek(origin + int(start * per_frame), stream=stream, backward=True)
    for count, frame in enumerate(container.decode(stream)):
        if per_frame is None or frame.pts is None:
            yield count, frame
        else:
            yield round((frame.pts - origin) / per_frame), frame


def _fit(frame: av.VideoFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Crop the middle to the clip's shape, then resize."""
    height, width = size
    pixels = _rgb(frame)
    h, w = pixels.shape[:2]
    crop_h, crop_w = min(h, round(w * height / width)), min(w, round(h * width / height))
    top, left = (h - crop_h) // 2, (w - crop_w) // 2
    middle = np.ascontiguousarray(pixels[top : top + crop_h, left : left + crop_w])
    if (crop_h, crop_w) == size:
        return middle
    method = "AREA" if crop_h > height else "BICUBIC"
    small = av.VideoFrame.from_ndarray(middle, format="rgb24").reformat(
        width=width, height=height, interpolation=method
    )
    return _rgb(small)


def _rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder; give a folder of videos, or: synth")
    try:
        return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    except OSError as err:
        raise TrainingError(f"cannot list {folder}: {err.strerror}") from err


def _scan(files: list[Path]) -> tuple[dict[Path, int], dict[Path, str]]:
    """Frames of every readable file, and the reason for every other."""
    lengths: dict[Path, int] = {}
    skipped: dict[Path, str] = {}
    for path in files:
        try:
            lengths[path] = count_frames(path)
        except TrainingError as err:
            skipped[path] = str(err)
            logger.warning("skipping a video (%d so far): %s", len(skipped), err)
    return lengths, skipped


def count_frames(path: Path) -> int:
    """Count a video's frames: by its header where that says so, else by its packets.

    Raises:
        TrainingError: not a video, or its first frame cannot be decoded.

    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise TrainingError(f"{path} holds no video stream")
            stream = container.streams.video[0]
            frames = stream.frames or sum(p.size > 0 for p in container.demux(stream))
            if stream.frames:
                next(container.decode(stream))
            return frames
    except StopIteration:
        raise TrainingError(f"{path} holds no frame") from None
    except (av.FFmpegError, OSError, ValueError) as err:
        raise TrainingError(f"{path} cannot be read as a video: {err}") from err


def _split(lengths: dict[Path, int], held_out: bool) -> list[Video]:
    if len(lengths) == 1:
        ((path, frames),) = lengths.items()
        cut = frames - frames // 5
        return [Video(path, cut, frames) if held_out else Video(path, 0, cut)]
    # Sorted names, evenly spread: the split does not depend on the seed of a run.
    step = min(HELD_OUT_SHARE, len(lengths))
    return [
        Video(path, 0, frames)
        for number, (path, frames) in enumerate(lengths.items())
        if (number % step == step - 1) == held_out
    ]


def _first(skipped: dict[Path, str]) -> str:
    return next(iter(skipped.values()))
