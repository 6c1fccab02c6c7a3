"""MP4 in fragments, as bytes that can be played while later frames are still being made.

What browsers' Media Source Extensions take: an initial segment, then fragments that each begin with
a whole picture. Knows frames and bytes; nothing of who sends or plays them.
"""

import re
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType

from lvdm_engines.errors import VideoError, cause
from lvdm_rt.video.containers import tag_yuv, to_yuv
from lvdm_rt.video.spec import Frames

_FRAGMENTS = "+frag_keyframe+empty_moov+default_base_moof+skip_trailer"
# No frame waits for a later one; whole pictures stand where `write` asks for them.
_ENCODER = {
    "crf": "18",
    "preset": "veryfast",
    "tune": "zerolatency",
    "threads": "1",
    "g": "100000",
    "chroma_sample_location": "center",
}
_AVC = re.compile(rb"avcC\x01(...)", re.DOTALL)


class _Bytes:
    """Where the muxer writes to, and what nobody has taken yet."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class FragmentedFilm:
    """A film that grows: `start`, then what each `write` gives, then what `close` gives.

    H.264 in yuv420p with the colours of `ContainerSink`; an odd side gets its last row or column
    twice. `codec` is its name in RFC 6381. All frames that were written can be shown but the last
    one, which begins the next fragment.
    """

    def __init__(self, size: tuple[int, int], fps: Fraction) -> None:
        """Open the encoder for frames of `size` (height, width). Raises VideoError."""
        height, width = size
        self._pad = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
        self._bytes, self._count, self._time_base = _Bytes(), 0, 1 / fps
        try:
            self._container = av.open(self._bytes, "w", format="mp4", container_options=_muxer())
            self._stream = self._container.add_stream("libx264", fps, options=dict(_ENCODER))
            self._stream.height, self._stream.width = height + height % 2, width + width % 2
            tag_yuv(self._stream)
            self._container.start_encoding()
        except (av.FFmpegError, av.codec.codec.UnknownCodecError, OSError) as err:
            raise VideoError(f"cannot encode live pictures: {cause(err)}") from err
        self.start = self._bytes.take()
        self.codec = codec_name(self.start)

    def write(self, frames: Frames) -> bytes:
        """Append frames, uint8 (f, h, w, 3), and return the fragments that became whole.

        The last frame is a whole picture: it ends the fragment before it, which need not wait for
        the frames that come next. Raises VideoError.
        """
        try:
            self._encode(frames)
        except (av.FFmpegError, OSError) as err:
            raise VideoError(f"cannot encode live pictures: {cause(err, otherwise='')}") from err
        return self._bytes.take()

    def _encode(self, frames: Frames) -> None:
        for index, pixels in enumerate(np.pad(frames, self._pad, "edge")):
            frame = to_yuv(pixels)
            frame.pts, frame.time_base = self._count, self._time_base
            whole = self._count == 0 or index + 1 == len(frames)
            frame.pict_type = PictureType.I if whole else PictureType.NONE
            self._container.mux(self._stream.encode(frame))
            self._count += 1

    def close(self) -> bytes:
        """Return the last fragment. Raises VideoError."""
        try:
            self._container.mux(self._stream.encode())
            self._container.close()
        except (av.FFmpegError, OSError) as err:
            raise VideoError(f"cannot encode live pictures: {cause(err, otherwise='')}") from err
        return self._bytes.take()


def live_codec(size: tuple[int, int], fps: Fraction) -> str:
    """Return the codec that a `FragmentedFilm` of such frames has. Raises VideoError."""
    film = FragmentedFilm(size, fps)
    film.close()
    return film.codec


def _muxer(*, reordered: bool = False) -> dict[str, str]:
    """Return the muxer's options; `reordered` where frames are not stored in the order of time."""
    more = {"movflags": f"{_FRAGMENTS}+negative_cts_offsets", "avoid_negative_ts": "disabled"}
    return {"movflags": _FRAGMENTS, "fflags": "+bitexact", "flush_packets": "1"} | (
        more if reordered else {}
    )


def codec_name(start: bytes) -> str:
    """Return the codec of a film by its initial segment, as `avc1.64000A`. Raises VideoError."""
    found = _AVC.search(start)
    if found is None:
        raise VideoError("got a film without the description of its H.264, expected one of ours")
    return f"avc1.{found[1].hex().upper()}"


def fragments(path: Path) -> Generator[bytes, None, None]:
    """Yield an MP4 file of ours as an initial segment and fragments; nothing is encoded again.

    Raises VideoError for a file that cannot be read.
    """
    made = _Bytes()
    try:
        with (
            av.open(f"file:{path}") as film,
            av.open(made, "w", format="mp4", container_options=_muxer(reordered=True)) as out,
        ):
            stream = out.add_stream_from_template(film.streams.video[0])
            out.start_encoding()
            yield made.take()
            for packet in film.demux(video=0):
                if packet.dts is None:  # after the last one
                    continue
                packet.stream = stream
                out.mux(packet)
                if data := made.take():
                    yield data
    except (av.FFmpegError, OSError) as err:
        raise VideoError(f"cannot read {path}: {cause(err)}") from err
    yield made.take()
