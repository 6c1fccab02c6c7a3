"""Sinks that encode through PyAV: MP4 (H.264), WebM (VP9), GIF, and PNG frames in a directory."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame

from lvdm_rt.video.sound import Sound
from lvdm_rt.video.spec import Frames, VideoSpec

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_BT709 = 1  # H.273 code point of primaries, transfer and matrix alike
_LIMITED_RANGE = 1


class FrameSink(Protocol):
    """One open output. A sink owns its encoding and its bytes, not the file's final name."""

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 (f, h, w, 3)."""

    def close(self) -> None:
        """Finish the file."""

    def abort(self) -> None:
        """Release what is open; what was written is worthless."""


@dataclass(frozen=True)
class EncoderSettings:
    """How one container is written: FFmpeg's names for it."""

    container: str
    codec: str
    options: Mapping[str, str]
    container_options: Mapping[str, str] = field(default_factory=dict)
    even: bool = False  # H.264 in yuv420p has no odd sizes


# The same frames give the same file. The encoders' output depends on the number of threads, so it
# is fixed; x264's fast macroblock tree gives now this, now that, so it is told to take the other
# one; bitexact leaves out the muxers' random and dated fields.
ENCODERS: Mapping[str, EncoderSettings] = {
    "mp4": EncoderSettings(
        "mp4",
        "libx264",
        {
            "crf": "16",
            "preset": "medium",
            "threads": "2",
            "x264-params": "cpu-independent=1",
            "chroma_sample_location": "center",
        },
        {"movflags": "+faststart", "fflags": "+bitexact"},
        even=True,
    ),
    "webm": EncoderSettings(
        "webm",
        "libvpx-vp9",
        {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "threads": "2"},
        {"fflags": "+bitexact"},
    ),
    "gif": EncoderSettings("gif", "gif", {}, {"fflags": "+bitexact"}),
    "png": EncoderSettings("", "png", {"pred": "mixed"}),
}


def tag_yuv(stream: "VideoStream") -> None:
    """Say of a stream what `to_yuv` makes."""
    stream.pix_fmt = "yuv420p"
    stream.color_primaries = stream.color_trc = _BT709
    stream.colorspace, stream.color_range = _BT709, _LIMITED_RANGE


def to_yuv(pixels: Frames) -> VideoFrame:
    """Return uint8 (h, w, 3) as encoders of films take it: yuv420p, BT.709, limited range."""
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(
        format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation="AREA"
    )


class ContainerSink:
    """An MP4 or WebM file. An odd side of an MP4 gets its last row or column twice."""

    def __init__(self, path: Path, spec: VideoSpec, encoder: EncoderSettings) -> None:
        """Open `path` for writing."""
        height, width = spec.size
        self._pad = (height % 2, width % 2) if encoder.even else (0, 0)
        self._container = av.open(
            f"file:{path}",
            "w",
            format=encoder.container,
            container_options=dict(encoder.container_options),
        )
        options = dict(encoder.options) | ({} if spec.crf is None else {"crf": str(spec.crf)})
        self._stream = cast(
            "VideoStream", self._container.add_stream(encoder.codec, spec.fps, options=options)
        )
        self._stream.height, self._stream.width = height + self._pad[0], width + self._pad[1]
        tag_yuv(self._stream)
        self._time_base = 1 / spec.fps
        self._container.metadata["comment"] = spec.settings
        self._sound: Sound | None = None
        if spec.sound is not None:
            self._sound = Sound(*spec.sound, self._container, encoder.container)
        self._container.start_encoding()  # a codec or place that cannot work fails here
        self._count = 0

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 (f, h, w, 3)."""
        padded = np.pad(frames, ((0, 0), (0, self._pad[0]), (0, self._pad[1]), (0, 0)), "edge")
        for pixels in padded:
            frame = to_yuv(pixels)
            frame.pts, frame.time_base = self._count, self._time_base
            self._container.mux(self._stream.encode(frame))
            self._count += 1
            self._add_sound(self._count * self._time_base)

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        self._add_sound(self._count * self._time_base)
        self._container.mux(self._stream.encode())
        self._container.close()
        if self._sound is not None:
            self._sound.close()

    def abort(self) -> None:
        """Close without caring what the file holds."""
        # A failed disk fails again when the trailer is written; the first error is the one told.
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        if self._sound is not None:
            self._sound.close()

    def _add_sound(self, until: Fraction) -> None:
        if self._sound is not None:
            for packet in self._sound.until(until):
                self._container.mux(packet)


class GifSink:
    """A GIF with a palette of its own for every frame.

    One palette for the whole video would need all its frames in memory.
    """

    def __init__(self, path: Path, spec: VideoSpec, encoder: EncoderSettings) -> None:
        """Open `path` for writing."""
        self._path, self._settings = path, spec.settings
        self._container = av.open(
            f"file:{path}", "w", format="gif", container_options=dict(encoder.container_options)
        )
        self._stream = cast("VideoStream", self._container.add_stream(encoder.codec, spec.fps))
        self._stream.height, self._stream.width = spec.size
        self._stream.pix_fmt = "pal8"
        self._time_base = 1 / spec.fps
        self._graph = _palette_graph(spec)
        self._count = 0

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 (f, h, w, 3)."""
        for pixels in frames:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = self._count, self._time_base
            self._graph.vpush(frame.reformat(format="bgra"))
            self._count += 1
            self._drain()

    def close(self) -> None:
        """Flush filters and encoder, finish the file, then append the settings as a comment."""
        self._graph.vpush(None)
        self._drain()
        self._container.mux(self._stream.encode())
        self._container.close()
        if self._settings:
            _append_gif_comment(self._path, self._settings.encode())

    def abort(self) -> None:
        """Close without caring what the file holds."""
        with suppress(av.FFmpegError, OSError):
            self._container.close()

    def _drain(self) -> None:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            self._container.mux(self._stream.encode(frame))


def _palette_graph(spec: VideoSpec) -> Graph:
    graph = Graph()
    height, width = spec.size
    source = graph.add(
        "buffer", f"video_size={width}x{height}:pix_fmt=bgra:time_base={1 / spec.fps}"
    )
    split = graph.add("split")
    # No transparent slot: FFmpeg would spend one of the 256 colours on it.
    palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _append_gif_comment(path: Path, text: bytes) -> None:
    """Put a comment extension (GIF89a, section 24) before the trailer byte."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x21\xfe")
        for start in range(0, len(text), 255):
            block = text[start : start + 255]
            file.write(bytes([len(block)]) + block)
        file.write(b"\x00\x3b")


class PngEncoder:
    """Pictures of one size, each as the bytes of a PNG file."""

    def __init__(self, size: tuple[int, int], encoder: EncoderSettings = ENCODERS["png"]) -> None:
        """Open the encoder for pictures of `size` (height, width)."""
        self._codec = cast("VideoCodecContext", av.CodecContext.create(encoder.codec, "w"))
        self._codec.height, self._codec.width = size
        self._codec.pix_fmt = "rgb24"
        self._codec.sample_aspect_ratio = Fraction(1)  # 0 is written, and refused by decoders
        self._codec.time_base = Fraction(1, 8)  # which no picture has
        self._codec.thread_count = 1  # one frame in, one file out
        self._codec.options = dict(encoder.options)
        self._count = 0

    def encode(self, pixels: Frames) -> bytes:
        """Return uint8 (h, w, 3) as a file."""
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = self._count
        self._count += 1
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


class PngSink:
    """A directory of PNG frames, numbered from zero with at least six digits."""

    def __init__(self, path: Path, spec: VideoSpec, encoder: EncoderSettings) -> None:
        """Make the directory `path`."""
        path.mkdir()
        self._path = path
        self._encoder = PngEncoder(spec.size, encoder)
        self._count = 0

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 (f, h, w, 3)."""
        for pixels in frames:
            (self._path / f"{self._count:06d}.png").write_bytes(self._encoder.encode(pixels))
            self._count += 1

    def close(self) -> None:
        """Nothing is left to finish: each frame is a whole file."""

    def abort(self) -> None:
        """Nothing is open between frames."""
