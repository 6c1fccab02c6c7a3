"""Reading a video as frames of one size and one rate.

A chain of small generators: decode, place in time, crop and resize, gather.
"""

import logging
import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from lvdm_engines.errors import VideoError
from lvdm_rt.video.arrays import Moment, Timed, npz_last_moment, read_npz
from lvdm_rt.video.film import (
    MAX_PIXELS,
    damaged,
    is_streamed,
    open_film,
    says_decoding_only,
    timed_frames,
    unreadable,
    video_stream,
)
from lvdm_rt.video.picture import fit
from lvdm_rt.video.spec import Frames

_log = logging.getLogger(__name__)

# Parts of an output frame by which a rounded time stamp may come late: 30 per second in GIF's
# hundredths of a second are off by up to 0.15.
_EARLY = Fraction(1, 4)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# One picture shown for longer than this is a damaged time stamp, not a slide show.
_LONGEST_FRAME_S = 600


@dataclass(frozen=True, kw_only=True)
class ReadSpec:
    """How frames should come: `size` (height, width), `fps`, and frames per yielded array.

    Pictures of more than `max_pixels` are refused before they take memory. `warn` tells what is
    missing of a film that can be shown all the same.
    """

    size: tuple[int, int]
    fps: Fraction
    chunk: int = 16
    max_pixels: int = MAX_PIXELS
    warn: bool = True


def read_frames(path: Path, spec: ReadSpec) -> Iterator[Frames]:
    """Yield the video as uint8 (f, h, w, 3) with f ≤ `spec.chunk`, never empty.

    Each picture is turned and mirrored as its container says, cropped around its centre to the
    asked shape and resized; pictures are repeated or left out so that time keeps its pace at
    `spec.fps`, counted from the end, so that the last picture is the last frame. A folder of
    pictures and a still picture have no pace: each picture is one frame. An .npz that the writer
    made is taken at the rate that it names.
    Raises VideoError for anything that is not a whole video.
    """
    pictures = _pictures(path, spec)
    while chunk := list(islice(pictures, spec.chunk)):
        yield np.stack(chunk)


def _pictures(path: Path, spec: ReadSpec) -> Iterator[Frames]:
    """Yield fitted pictures (h, w, 3)."""
    if path.is_dir():
        for file in picture_files(path):
            yield from _still(file, spec)
    elif not path.is_file():
        problem = "it is no ordinary file" if path.exists() else "there is no such file"
        raise VideoError(f"cannot read {path}: {problem}; give a video file")
    elif path.suffix.lower() == ".npz":
        last = _last_due(npz_last_moment(path, spec.max_pixels), spec.fps)
        timed = read_npz(path, spec.max_pixels)
        yield from (fit(f, spec.size, 1.0) for f in _resample(path, timed, spec.fps, last))
    elif path.suffix.lower() in PICTURES:
        yield from _still(path, spec)
    else:
        yield from _film(path, spec)


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order of their names, numbers as numbers.

    Raises VideoError if there are none.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES]
    if not files:
        raise VideoError(
            f"cannot read {folder}: it is a directory without pictures ({', '.join(PICTURES)}); "
            "give a video file or a folder of frames"
        )
    return sorted(files, key=_by_number)


def _by_number(file: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"(\d+)", file.name)
    numbered = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    return numbered, file.name  # which tells 1.png from 01.png


def _film(path: Path, spec: ReadSpec) -> Iterator[Frames]:
    try:
        last = _last_due(_last_moment(path, spec.max_pixels), spec.fps)
        with open_film(path, spec.max_pixels) as container:
            stream = video_stream(path, container, spec.max_pixels)
            timed = timed_frames(path, container, stream, warn=spec.warn)
            shape = float(stream.sample_aspect_ratio or 1)
            shown = _resample(path, timed, spec.fps, last)
            yield from (fit(frame, spec.size, shape) for frame in shown)
    except (OSError, av.FFmpegError) as err:
        raise unreadable(path, err) from err


def _still(path: Path, spec: ReadSpec) -> Iterator[Frames]:
    """Yield the first picture of a file."""
    try:
        with open_film(path, spec.max_pixels) as container:
            stream = video_stream(path, container, spec.max_pixels)
            timed = timed_frames(path, container, stream, warn=spec.warn)
            shape = float(stream.sample_aspect_ratio or 1)
            for _, _, frame in islice(timed, 1):
                yield fit(frame, spec.size, shape)
            if next(timed, None) is not None:
                _log.warning(
                    "%s holds more than one picture, of which the first is taken; give it the "
                    "suffix of a film, such as .mp4, to take all",
                    path,
                )
    except (OSError, av.FFmpegError) as err:
        raise unreadable(path, err) from err


def read_last_frames(path: Path, spec: ReadSpec, count: int) -> Frames:
    """Return the last `count` frames of the video, or all it has: uint8 (f, h, w, 3).

    Memory holds no more than those and one chunk. Raises VideoError like `read_frames`.
    """
    last: deque[Frames] = deque(maxlen=count)
    for chunk in read_frames(path, spec):
        last.extend(chunk)
    return np.stack(list(last))


def _last_moment(path: Path, max_pixels: int) -> Moment:
    """Return when the last picture is shown: as the packets say, or else as the decoder does."""
    with open_film(path, max_pixels) as container:
        told = _packet_moment(container, video_stream(path, container, max_pixels))
    if told is not None:
        return told
    last = Fraction(0), Fraction(0)
    with open_film(path, max_pixels) as container:
        stream = video_stream(path, container, max_pixels)
        for time, length, _ in timed_frames(path, container, stream, warn=False):
            last = time, length
    return last


def _packet_moment(container: av.container.InputContainer, stream: av.VideoStream) -> Moment | None:
    """Return the last picture's moment as packets tell it; None where only decoding tells."""
    rate = stream.guessed_rate or stream.average_rate
    base, before = stream.time_base, None
    last: tuple[int, int] | None = None
    if is_streamed(container) or base is None:  # its times may start again
        return None
    if says_decoding_only(container, stream):
        return None
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard:
            continue
        stamps = packet.pts, packet.dts
        if stamps[0] is None or stamps[1] is None or stamps[1] < (before or stamps[1]):
            return None
        before = stamps[1]
        last = max(last or (stamps[0], 0), (stamps[0], packet.duration or 0))
    if last is None or not (last[1] or rate):
        return None
    return last[0] * base, last[1] * base if last[1] else 1 / Fraction(rate or 1)


def _last_due(moment: Moment, fps: Fraction) -> Fraction:
    """Return when the last output frame is taken: while the last picture is shown, near its end."""
    time, length = moment
    return time + length - min(length / 2, _EARLY / fps)


def _resample(
    path: Path, timed: Iterator[Timed], fps: Fraction, last: Fraction
) -> Iterator[VideoFrame]:
    """Yield the frame that is on show at …, last - 1/fps, last; at least one."""
    due: Fraction | None = None  # when the next frame is taken
    held: VideoFrame | None = None
    end, count = Fraction(0), 0
    for time, length, frame in timed:
        if due is None:
            due = last - math.floor(max(last - time, Fraction(0)) * fps) / fps
        if time - due > _LONGEST_FRAME_S:
            raise damaged(path, f"its time stamps jump by {float(time - due):.0f} s")
        while held is not None and due < time:
            yield held
            due, count = due + 1 / fps, count + 1
        held, end = frame, time + length
    if held is None or due is None:
        return
    end = min(end, due + _LONGEST_FRAME_S)
    while due < end or count == 0:
        yield held
        due, count = due + 1 / fps, count + 1
