"""Reading a video as frames of one size and one rate.

A chain of small generators: decode, place in time, crop and resize, gather.
"""

import errno
import math
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from lvdm_engines.errors import VideoError
from lvdm_rt.video.arrays import Timed, read_npz, too_large
from lvdm_rt.video.spec import Frames

MAX_PIXELS = 1 << 26  # of a picture, which takes about 10 bytes each while it is fitted
_PADDING = 1 << 16  # pixels that codecs add around a picture
_FALLBACK_RATE = Fraction(25)  # what FFmpeg assumes for streams that name no rate
# Containers round times to milliseconds, and some leave out the last frame's length.
_SLACK_FRAMES = 1
# Parts of an output frame by which a rounded time stamp may come late: 30 per second in GIF's
# hundredths of a second are off by up to 0.15.
_EARLY = Fraction(1, 4)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# One picture shown for longer than this is a damaged time stamp, not a slide show.
_LONGEST_FRAME_S = 600
# Titles that are not UTF-8 must not stop a reading; from PyAV 19 on they never do.
_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)
# Formats that only name other files, or make pictures of their own.
_POINTERS = {"concat", "dash", "hls", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"}
_FORMATS = ",".join(sorted(av.formats_available - _POINTERS))


def open_film(path: Path, max_pixels: int = MAX_PIXELS) -> InputContainer:
    """Open a media file and no other that it may name.

    Pictures of more than twice `max_pixels` are never decoded.

    Raises av.FFmpegError, OSError, and VideoError for a pipe or a device, which may never end.
    """
    if path.exists() and not path.is_file():
        raise VideoError(f"cannot read {path}: it is no ordinary file; remove it")
    limit = {"max_pixels": str(2 * max_pixels + _PADDING)}
    # file: keeps FFmpeg from reading a protocol into a name with a colon.
    options = {**limit, "format_whitelist": _FORMATS}
    container: InputContainer = av.open(f"file:{path}", "r", options=options, **_METADATA)
    for stream in container.streams.video:
        stream.codec_context.options = limit
    return container


@dataclass(frozen=True, kw_only=True)
class ReadSpec:
    """How frames should come: `size` (height, width), `fps`, and frames per yielded array.

    Pictures of more than `max_pixels` are refused before they take memory.
    """

    size: tuple[int, int]
    fps: Fraction
    chunk: int = 16
    max_pixels: int = MAX_PIXELS


def read_frames(path: Path, spec: ReadSpec) -> Iterator[Frames]:
    """Yield the video as uint8 (f, h, w, 3) with f ≤ `spec.chunk`, never empty.

    Each picture is rotated as its container says, cropped around its centre to the asked shape
    and resized; pictures are repeated or left out so that time keeps its pace at `spec.fps`. A
    folder of pictures and a still picture have no pace: each picture is one frame. An .npz that
    the writer made is taken at the rate that it names.
    Raises VideoError for anything that is not a whole video.
    """
    pictures = _pictures(path, spec)
    while chunk := list(islice(pictures, spec.chunk)):
        yield np.stack(chunk)


def _pictures(path: Path, spec: ReadSpec) -> Iterator[Frames]:
    """Yield fitted pictures (h, w, 3)."""
    if path.is_dir():
        for file in picture_files(path):
            yield from islice(_film(file, spec), 1)
    elif not path.is_file():
        problem = "it is no ordinary file" if path.exists() else "there is no such file"
        raise VideoError(f"cannot read {path}: {problem}; give a video file")
    elif path.suffix.lower() == ".npz":
        timed = read_npz(path, spec.max_pixels)
        yield from (_fit(f, spec.size, 1.0) for f in _resample(path, timed, spec.fps))
    else:
        still = path.suffix.lower() in PICTURES
        yield from islice(_film(path, spec), 1 if still else None)


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
        with open_film(path, spec.max_pixels) as container:
            stream = _video_stream(path, container)
            _check_size(path, stream, spec.max_pixels)
            timed = _decode(path, container, stream)
            shape = float(stream.sample_aspect_ratio or 1)
            yield from (_fit(f, spec.size, shape) for f in _resample(path, timed, spec.fps))
    except (OSError, av.FFmpegError) as err:
        raise _damaged(path, _reason(err)) from err


def read_last_frames(path: Path, spec: ReadSpec, count: int) -> Frames:
    """Return the last `count` frames of the video, or all it has: uint8 (f, h, w, 3).

    Memory holds no more than those and one chunk. Raises VideoError like `read_frames`.
    """
    last: deque[Frames] = deque(maxlen=count)
    for chunk in read_frames(path, spec):
        last.extend(chunk)
    return np.stack(list(last))


def _damaged(path: Path, what: str) -> VideoError:
    return VideoError(
        f"cannot read {path}: {what}; give a complete video file, or save what is left of it with"
        " ffmpeg -i IN OUT.mp4"
    )


def _reason(err: OSError | av.FFmpegError) -> str:
    if isinstance(err, av.DecoderNotFoundError):
        return f"this PyAV {av.__version__} has no decoder for it"
    if err.errno == errno.EINVAL:  # the list of allowed formats
        return "it is a playlist, a format that is not read, or damaged"
    if isinstance(err, (av.EOFError, av.InvalidDataError)) or err.errno == errno.EIO:
        return f"it is no video, damaged or incomplete ({err.strerror})"
    return err.strerror or str(err)


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        # The cover picture of a song is a video stream to FFmpeg.
        if not stream.disposition & Disposition.attached_pic:
            stream.thread_type = "AUTO"
            return stream
    kinds = " and ".join(sorted({str(stream.type) for stream in container.streams}))
    raise VideoError(
        f"cannot read {path}: it holds no video, only {kinds or 'headers'};"
        " give a complete video file"
    )


def _check_size(path: Path, stream: VideoStream, most: int) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width:  # FFmpeg has tried already
        raise VideoError(
            f"cannot read {path}: its pictures are damaged or have more than {most} pixels; give a "
            "complete file with smaller ones, or raise the limit with --max-pixels"
        )
    if width * height > most:
        raise too_large(path, width, height, most)


def _decode(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[Timed]:
    """Yield decoded frames with their times, and make sure that the file does not end early."""
    rate = stream.guessed_rate or stream.average_rate or _FALLBACK_RATE
    end: Fraction | None = None
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise _damaged(path, "it ends or is damaged inside a frame")
        for frame in packet.decode():
            time = end or Fraction(0)
            if frame.pts is not None and frame.time_base is not None:
                time = frame.pts * frame.time_base
            length = 1 / rate
            if frame.duration and frame.time_base is not None:
                length = frame.duration * frame.time_base
            end = time + length
            yield time, length, frame
    if end is None:
        raise _damaged(path, "not one frame of it can be decoded")
    if container.format.name == "gif" and not _has_gif_trailer(path):
        raise _damaged(path, "it ends inside a frame")  # GIF announces no length
    expected = _announced_end(container, stream)
    if expected is not None and end < expected - _SLACK_FRAMES / rate:
        raise _damaged(
            path, f"it stops after {float(end):.2f} s of the {float(expected):.2f} s it announces"
        )


def _has_gif_trailer(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(1024, path.stat().st_size), os.SEEK_END)
        return file.read().rstrip(b"\0").endswith(b"\x3b")


def _announced_end(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Return when the last frame should end, in seconds, where the container says so."""
    if stream.duration is not None and stream.time_base is not None:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    # The container's own duration is that of its longest stream.
    if container.duration is not None and len(container.streams) == 1:
        return Fraction((container.start_time or 0) + container.duration, av.time_base)
    return None


def _resample(path: Path, timed: Iterator[Timed], fps: Fraction) -> Iterator[VideoFrame]:
    """Yield the frame that is on show at 0, 1/fps, 2/fps, …; at least one."""
    start: Fraction | None = None
    end = Fraction(0)
    due = 0  # index of the next frame to yield
    held: VideoFrame | None = None
    for time, length, frame in timed:
        start = time if start is None else start
        first = _first_at(time - start, fps)
        if (first - due) / fps > _LONGEST_FRAME_S:
            raise _damaged(path, f"its time stamps jump by {float((first - due) / fps):.0f} s")
        if held is not None:
            for _ in range(due, first):
                yield held
            due = max(due, first)
        held, end = frame, time - start + length
    if held is not None:
        last = min(_first_at(end, fps), due + math.ceil(_LONGEST_FRAME_S * fps))
        for _ in range(due, max(last, 1)):
            yield held


def _first_at(seconds: Fraction, fps: Fraction) -> int:
    """Return the first index whose moment is not before `seconds`, rounded time stamps allowed."""
    return math.ceil(seconds * fps - _EARLY)


def _fit(frame: VideoFrame, size: tuple[int, int], pixel_aspect: float) -> Frames:
    """Return (h, w, 3): cropped around the centre to the shape of `size`, resized, upright."""
    turns = round(frame.rotation / 90) % 4
    height, width = size if turns % 2 == 0 else size[::-1]
    crop = centre_crop(to_pixels(frame), width / height / pixel_aspect)
    shrinks = crop.shape[0] >= height and crop.shape[1] >= width
    fitted = resize(crop, (height, width), shrinks=shrinks)
    return np.ascontiguousarray(np.rot90(fitted, turns))


def to_pixels(frame: VideoFrame) -> Frames:
    """Return the frame as (h, w, 3)."""
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def centre_crop(pixels: Frames, aspect: float | Fraction) -> Frames:
    """Return the largest centred part whose width is `aspect` times its height."""
    height, width = pixels.shape[:2]
    kept_height = max(1, min(height, round(width / aspect)))
    kept_width = max(1, min(width, round(height * aspect)))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return pixels[top : top + kept_height, left : left + kept_width]


def resize(pixels: Frames, size: tuple[int, int], *, shrinks: bool) -> Frames:
    """Bring (h, w, 3) to `size` (height, width): by averaging if it shrinks, else bicubically."""
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    method = "AREA" if shrinks else "BICUBIC"
    return to_pixels(frame.reformat(width=size[1], height=size[0], interpolation=method))
