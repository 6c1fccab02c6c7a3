"""A media file as decoded frames with their times, and what is missing of it.

What players show is taken, with a warning; what is cut off or damaged is refused.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from lvdm_engines.atomic import open_file
from lvdm_engines.errors import VideoError, cause
from lvdm_rt.video.arrays import Timed, too_large
from lvdm_rt.video.gif_blocks import gif_ending

_log = logging.getLogger(__name__)

MAX_PIXELS = 1 << 26  # of a picture, which takes about 10 bytes each while it is fitted
_PADDING = 1 << 16  # pixels that codecs add around a picture
_FALLBACK_RATE = Fraction(25)  # what FFmpeg assumes for streams that name no rate
# Containers round times to milliseconds, and some leave out the last frame's length.
_SLACK_FRAMES = 1
_STREAMED = 512  # FFmpeg's AVFMT_TS_DISCONT: formats of recordings, whose times may start again
_BACK = Fraction(1, 10)  # seconds; FFmpeg's own limits of what is a jump
_AHEAD = 10
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

    Raises av.FFmpegError, OSError, and VideoError for pictures of an unknown kind, and for a pipe
    or a device, which may never end.
    """
    if path.exists() and not path.is_file():
        raise VideoError(f"cannot read {path}: it is no ordinary file; remove it")
    limit = {"max_pixels": str(2 * max_pixels + _PADDING)}
    # file: keeps FFmpeg from reading a protocol into a name with a colon.
    options = {**limit, "format_whitelist": _FORMATS}
    container: InputContainer = av.open(f"file:{path}", "r", options=options, **_METADATA)
    for stream in container.streams.video:
        codec: Any = stream.codec_context
        if codec is None:
            container.close()
            raise damaged(path, f"this PyAV {av.__version__} has no decoder for its pictures")
        codec.options = limit
    return container


def damaged(path: Path, what: str) -> VideoError:
    """Return the error of a file that is not whole."""
    return VideoError(
        f"cannot read {path}: {what}; give a complete video file, or save what is left of it with"
        " ffmpeg -i IN OUT.mp4"
    )


def unreadable(path: Path, err: OSError | av.FFmpegError | None) -> VideoError:
    """Return the error of a file that FFmpeg cannot read, or of which it makes nothing."""
    if _is_animated_webp(path):
        return VideoError(
            f"cannot read {path}: it is an animated WebP, a format that is not supported; give it "
            "as .mp4, .webm or .gif, or as a folder of pictures"
        )
    if err is None:
        return damaged(path, "not one frame of it can be decoded")
    refused = isinstance(err, OSError) and err.errno in (errno.EACCES, errno.EPERM, errno.EIO)
    if refused and not (err.errno == errno.EIO and _reads_whole(path)):
        return VideoError(f"cannot read {path}: {cause(err)}")
    return damaged(path, _reason(err))


def _reads_whole(path: Path) -> bool:
    """Tell whether the disk gives all of a file: FFmpeg's reading ends in EIO where it is cut."""
    try:
        with open_file(path) as file:
            while file.read(1 << 20):
                pass
    except OSError:
        return False
    return True


def _reason(err: OSError | av.FFmpegError) -> str:
    if isinstance(err, av.DecoderNotFoundError):
        return f"this PyAV {av.__version__} has no decoder for it"
    if err.errno == errno.EINVAL:  # the list of allowed formats
        return "it is a playlist, a format that is not read, or damaged"
    if isinstance(err, (av.EOFError, av.InvalidDataError)):
        return f"it is no video, damaged or incomplete ({err.strerror})"
    return err.strerror or str(err)


def _is_animated_webp(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(21)
    except OSError:
        return False
    return start[:4] + start[8:16] == b"RIFFWEBPVP8X" and bool(start[20:] and start[20] & 2)


def video_stream(path: Path, container: InputContainer, most: int) -> VideoStream:
    """Return what is to be seen, of at most so many pixels a picture. Raises VideoError."""
    for stream in container.streams.video:
        # The cover picture of a song is a video stream to FFmpeg.
        if not stream.disposition & Disposition.attached_pic:
            stream.thread_type = "AUTO"
            _check_size(path, stream, most)
            return stream
    kinds = " and ".join(sorted({str(stream.type) for stream in container.streams}))
    raise VideoError(
        f"cannot read {path}: it holds no video, only {kinds or 'headers'};"
        " give a complete video file"
    )


def _check_size(path: Path, stream: VideoStream, most: int) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width and _is_animated_webp(path):
        raise unreadable(path, None)
    if not width:  # FFmpeg has tried already
        raise VideoError(
            f"cannot read {path}: its pictures are damaged or have more than {most} pixels; give a "
            "complete file with smaller ones, or raise the limit with --max-pixels"
        )
    if width * height > most:
        raise too_large(path, width, height, most)


class _Clock:
    """Time that goes on where the stamps of a recording start again, or jump ahead."""

    def __init__(self, *, streamed: bool, warn: Callable[[str], None]) -> None:
        self._streamed, self._warn = streamed, warn
        self._shift = Fraction(0)
        self._last: Fraction | None = None
        self.end: Fraction | None = None
        self.jumped = False

    def at(self, stamp: Fraction | None, length: Fraction) -> Fraction:
        """Return when a frame starts that is stamped so and shown so long, in seconds."""
        expected = self.end or Fraction(0)
        time = expected if stamp is None else stamp + self._shift
        if self._last is not None and self._is_jump(time - self._last, time - expected):
            self._warn(f"its time stamps start again at {float(expected):.1f} s; it goes on there")
            self._shift += expected - time
            time, self.jumped = expected, True
        self._last = time = time if self._last is None else max(time, self._last)
        self.end = time + length
        return time

    def _is_jump(self, since_last: Fraction, since_end: Fraction) -> bool:
        return since_last < -_BACK or (self._streamed and since_end > _AHEAD)


def says_decoding_only(container: InputContainer, stream: VideoStream) -> bool:
    """Tell whether a film says when pictures are decoded, but not when they are shown.

    So do AVI films whose pictures lean on later ones; what FFmpeg makes of their times is wrong.
    """
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def timed_frames(
    path: Path, container: InputContainer, stream: VideoStream, *, warn: bool
) -> Iterator[Timed]:
    """Yield decoded frames with their times in seconds, and make sure that none is missing.

    With `warn`, what is missing of a film that can be shown all the same is told.

    Raises VideoError, av.FFmpegError.
    """

    def told(what: str) -> None:
        if warn:
            _log.warning("%s: %s", path, what)

    rate = stream.guessed_rate or stream.average_rate or _FALLBACK_RATE
    streamed = is_streamed(container)
    clock = _Clock(streamed=streamed, warn=told)
    decoding = says_decoding_only(container, stream)
    reached = Fraction(0)  # the end of any stream
    for packet in container.demux():
        reached = max(reached, _end(packet))
        if packet.stream is stream:
            for frame in _decoded(path, packet, told if streamed else None):
                stamp, length = _stamp(frame, frame.dts if decoding else frame.pts, rate)
                yield clock.at(stamp, length), length, frame
    if clock.end is None:
        raise unreadable(path, None)
    if container.format.name == "gif":  # which announces no length
        _check_gif(path, told)
    end, expected = max(clock.end, reached), _announced_end(container, stream)
    if expected is not None and end < expected - _SLACK_FRAMES / rate:
        told_end = f"{float(end):.2f} s of the {float(expected):.2f} s it announces"
        raise damaged(path, f"it stops after {told_end}")


def _stamp(
    frame: av.VideoFrame, stamp: int | None, rate: Fraction
) -> tuple[Fraction | None, Fraction]:
    """Return a frame's time stamp, if it has one, and how long it is shown, in seconds."""
    if frame.time_base is None:
        return None, 1 / rate
    length = frame.duration * frame.time_base if frame.duration else 1 / rate
    return None if stamp is None else stamp * frame.time_base, length


def is_streamed(container: InputContainer) -> bool:
    """Tell whether it has a format of recordings, that begin and end anywhere."""
    return bool(container.format.flags & _STREAMED)


def _decoded(
    path: Path, packet: Any, told: Callable[[str], None] | None
) -> Iterator[av.VideoFrame]:
    """Yield a packet's frames; what is damaged in a recording is told and left out."""
    if packet.is_corrupt and told is None:
        raise damaged(path, "it ends or is damaged inside a frame")
    try:
        yield from packet.decode()
    except av.InvalidDataError:
        if told is None:
            raise
        told("a part of it is damaged and left out")
    else:
        if packet.is_corrupt and told is not None:
            told("a part of it is missing, where it was cut or joined")


def _end(packet: Any) -> Fraction:
    if packet.pts is None or packet.time_base is None:
        return Fraction(0)
    end: Fraction = (packet.pts + (packet.duration or 0)) * packet.time_base
    return end


def _check_gif(path: Path, told: Callable[[str], None]) -> None:
    ending = gif_ending(path)
    if ending == "cut":
        raise damaged(path, "it ends inside a frame")
    if ending == "open":
        told("its end mark is missing; all frames that it holds are read")


def _announced_end(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Return when the last frame should end, in seconds, where the container says so."""
    if is_streamed(container):
        return None
    if stream.duration is not None and stream.time_base is not None:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    # The container's own duration is that of its longest stream.
    if container.duration is not None:
        return Fraction(container.duration, av.time_base)
    return None
