"""Frames of one video file, archive or folder of pictures, by number: how many, clips of them."""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import TrainingError, VideoError
from lvdm_rt.video.arrays import npz_last_moment, read_npz
from lvdm_rt.video.film import MAX_PIXELS, open_film, says_decoding_only
from lvdm_rt.video.picture import fit
from lvdm_rt.video.reader import picture_files
from lvdm_tools.data.clip import ClipSpec

Times = NDArray[np.int64]

_UNDER_COUNT = 1  # frames that headers of old AVI files promise beyond what is there
_KNOWN_FILES = 1 << 16  # whose frame times are kept: 8 bytes a frame where the rate is uneven


def count_frames(path: Path) -> int:
    """Count a video's frames: by its header where that says so, else by its packets.

    Of a folder, its pictures are counted.
    Raises TrainingError: not a video, or its first frame cannot be decoded.
    """
    if path.is_dir():
        files = picture_files(path)
        _picture(files[0])
        return len(files)
    try:
        if _is_archive(path):
            start, length = npz_last_moment(path, MAX_PIXELS)
            return round(start / length) + 1
        with open_film(path) as container:
            if not container.streams.video:
                raise TrainingError(f"{path} holds no video stream")
            stream = container.streams.video[0]
            if stream.frames and not _begins_cut(path):
                next(container.decode(stream))
                return stream.frames
            return sum(p.size > 0 and not p.is_discard for p in container.demux(stream))
    except StopIteration:
        raise TrainingError(f"{path} holds no frame") from None
    except (VideoError, av.FFmpegError, OSError, ValueError) as err:
        raise TrainingError(f"{path} cannot be read as a video: {err}") from err


def size_and_rate(path: Path) -> tuple[tuple[int, int], Fraction | None]:
    """Return a video's height and width, and its frames per second: None of pictures, or unknown.

    Raises TrainingError: not a video.
    """
    try:
        if _is_archive(path):
            _, length, frame = next(read_npz(path, MAX_PIXELS))
            return (frame.height, frame.width), 1 / length
        with open_film(picture_files(path)[0] if path.is_dir() else path) as container:
            stream = container.streams.video[0]
            rate = None if path.is_dir() else stream.average_rate
            return (stream.height, stream.width), rate
    except (av.FFmpegError, OSError, IndexError, VideoError) as err:
        raise TrainingError(f"{path} cannot be read as a video: {err}") from err


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _begins_cut(path: Path) -> bool:
    """Tell whether an edit list leaves out the first frames, which a header counts all the same."""
    with open_film(path) as container:
        packets = container.demux(container.streams.video[0])
        return any(packet.is_discard for packet in islice(packets, 1))


def read_clip(path: Path, start: int, spec: ClipSpec) -> NDArray[np.uint8]:
    """Read the clip that begins at frame `start`: uint8 (f, h, w, 3), centre-cropped, resized.

    Raises TrainingError: the file cannot be decoded, or ends too early.
    """
    wanted = range(start, start + spec.span, spec.stride)
    frames = np.empty((spec.frames, *spec.size, 3), np.uint8)
    decoded = _pictures(path, wanted) if path.is_dir() else _frames_from(path, start)
    got = 0
    try:
        square = path.is_dir() or _is_archive(path)
        shape = 1.0 if square else _pixel_aspect(path, path.stat().st_mtime_ns)
        for number, frame in decoded:
            if number >= wanted[got]:
                frames[got] = fit(frame, spec.size, shape)
                got += 1
                if got == spec.frames:
                    return frames
    except (VideoError, av.FFmpegError, OSError, ValueError) as err:
        raise TrainingError(f"{path} cannot be decoded near frame {start}: {err}") from err
    raise TrainingError(
        f"{path} ended after {got} of {spec.frames} frames of the clip that begins at {start}"
    )


def every_frame(path: Path, first: int = 0, last: int | None = None) -> Iterator[av.VideoFrame]:
    """Decode the frames numbered `first` to before `last`, or to the end.

    Raises TrainingError: a frame is damaged, or the video is shorter than it says or than `last`.
    """
    number = first - 1
    try:
        expected = count_frames(path) if last is None else last
        wanted = range(first, expected)
        numbered = (
            _pictures(path, wanted, strict=True) if path.is_dir() else _frames_from(path, first)
        )
        for number, frame in numbered:
            if last is not None and number >= last:
                return
            if number >= first:
                yield frame
    except (VideoError, av.FFmpegError, OSError, ValueError) as err:
        raise TrainingError(f"{path} cannot be decoded after frame {number}: {err}") from err
    if number + 1 < expected - _UNDER_COUNT:
        raise TrainingError(f"{path} ended after {number + 1} of {expected} frames")


def _pictures(
    folder: Path, wanted: range, *, strict: bool = False
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode pictures of a folder by their places in the order of their names."""
    files = picture_files(folder)
    for number in wanted:
        if number < len(files):
            yield number, _picture(files[number], strict=strict)


def _picture(file: Path, *, strict: bool = False) -> av.VideoFrame:
    """Decode a picture; FFmpeg shows what there is of a JPEG that is cut off, unless `strict`."""
    try:
        with open_film(file) as container:
            if strict:
                context = container.streams.video[0].codec_context
                context.options = {**context.options, "err_detect": "explode"}
            return next(container.decode(video=0))
    except VideoError as err:
        raise TrainingError(err) from err
    except (av.FFmpegError, OSError, ValueError, IndexError, StopIteration) as err:
        raise TrainingError(f"{file} cannot be read as a picture: {err or 'it is empty'}") from err


def _frames_from(path: Path, start: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode numbered frames in the order of display, beginning at or before `start`.

    A seek may land behind `start`, and where there are B frames or an uneven rate no arithmetic on
    a frame's time gives its number. So numbers are looked up in the times of all frames; where that
    fails, frames are counted from the first.
    """
    if _is_archive(path):
        yield from enumerate(frame for _, _, frame in read_npz(path, MAX_PIXELS))
        return
    times = _times(path, path.stat().st_mtime_ns) if start else None
    if times is not None and start < len(times):
        with open_film(path) as container:
            frames = _decoded_from(container, int(times[start]))
            first = next(frames, None)
            number = None if first is None else _position(times, first)
            if first is not None and number is not None and number <= start:
                yield number, first
                for frame in frames:
                    place = _position(times, frame)
                    number = number + 1 if place is None else place
                    yield number, frame
                return
    with open_film(path) as container:
        yield from enumerate(_decoded_from(container, None))


def _decoded_from(
    container: av.container.InputContainer, time: int | None
) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    if time is not None:
        try:
            container.seek(time, stream=stream, backward=True)
        except av.FFmpegError:  # not every container can
            return
    yield from container.decode(stream)


@lru_cache(maxsize=_KNOWN_FILES)
def _times(path: Path, _changed: int) -> range | Times | None:
    """Give all frames' times in the order of display; None where packets do not tell them."""
    with open_film(path) as container:
        stream = container.streams.video[0]
        if says_decoding_only(container, stream):
            return None
        packets = container.demux(stream)
        stamps = [packet.pts for packet in packets if packet.size and not packet.is_discard]
    if not stamps or None in stamps or len(set(stamps)) < len(stamps):
        return None
    times = np.sort(np.array(stamps, np.int64))
    even = range(int(times[0]), int(times[-1]) + 1, max(1, int(np.diff(times[:2]).sum())))
    return even if len(even) == len(times) and (times == even).all() else times


@lru_cache(maxsize=_KNOWN_FILES)
def _pixel_aspect(path: Path, _changed: int) -> float:
    """Give the width of a film's pixels by their height."""
    with open_film(path) as container:
        return float(container.streams.video[0].sample_aspect_ratio or 1)


def _position(times: range | Times, frame: av.VideoFrame) -> int | None:
    if frame.pts is None:
        return None
    if isinstance(times, range):
        return times.index(frame.pts) if frame.pts in times else None
    place = int(np.searchsorted(times, frame.pts))
    return place if place < len(times) and times[place] == frame.pts else None
