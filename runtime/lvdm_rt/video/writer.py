"""Writing a video: beside its name while it grows, under its name once it is whole."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

import av
import numpy as np

from lvdm_engines.atomic import (
    partial_of,
    remove,
    remove_leftovers,
    why_not_replaced,
)
from lvdm_engines.errors import OptionsError, VideoError, cause
from lvdm_rt.video.arrays import NpzSink, Y4mSink
from lvdm_rt.video.containers import ENCODERS, ContainerSink, FrameSink, GifSink, PngSink
from lvdm_rt.video.publishing import HiddenFiles
from lvdm_rt.video.sidecar import sidecar_path
from lvdm_rt.video.spec import Frames, OutputKind, VideoSpec, output_kind

_GIF_FPS = 100


def open_writer(
    out: str, spec: VideoSpec, stdout: BinaryIO | None = None, *, replace: bool = False
) -> "VideoWriter":
    """Open a writer for `out`, whose format its suffix names (see `output_kind`).

    `stdout` is where `-` goes, the process's own if None. A file of that name is replaced when the
    new one is whole; a directory with pictures in it is refused unless `replace`.
    Raises OptionsError for an unknown suffix, VideoError if the place cannot be written or the
    encoder is missing.
    """
    kind = check_output(out, spec, replace=replace)
    with _write_errors(out):
        if kind == "y4m":
            sink: FrameSink = Y4mSink(sys.stdout.buffer if stdout is None else stdout, spec)
            return VideoWriter(out, spec, sink, None)
        path = Path(out)
        for name in (path, sidecar_path(path)):
            remove_leftovers(name)
        files = HiddenFiles(path, replace=replace)
        try:
            sink = _file_sink(kind, files.video, spec)
            files.hold()
            return VideoWriter(out, spec, sink, files)
        except BaseException:  # an interrupt as well: nobody owns the file yet
            files.remove()
            raise


def check_output(out: str, spec: VideoSpec, *, replace: bool = False) -> OutputKind:
    """Return the format of `out` after making sure that it can be written, as far as one can know.

    Raises OptionsError for an unknown suffix or what the format has not, VideoError for the place
    or a missing encoder.
    """
    kind = output_kind(out)
    _check_format(out, kind, spec)
    missing = missing_encoder(kind)
    if missing:
        raise VideoError(f"cannot write {out}: {missing}")
    if kind != "y4m":
        _check_place(Path(out), kind, replace=replace)
    return kind


def _check_format(out: str, kind: OutputKind, spec: VideoSpec) -> None:
    if spec.crf is not None and kind not in ("mp4", "webm"):
        raise OptionsError(f"got crf {spec.crf} for {out}, which .mp4 and .webm have; leave it out")
    if kind == "gif" and spec.fps > _GIF_FPS:
        raise OptionsError(
            f"got {float(spec.fps):g} frames per second for {out}, whose pictures are shown for "
            f"whole hundredths of a second; ask for at most {_GIF_FPS}, or for .mp4"
        )


def missing_encoder(kind: OutputKind) -> str | None:
    """Return why this PyAV cannot encode `kind`, with the way out, or None if it can."""
    encoder = ENCODERS.get(kind)
    if encoder is None:
        return None
    try:
        av.Codec(encoder.codec, "w")
    except av.codec.codec.UnknownCodecError:
        return (
            f"this PyAV {av.__version__} has no {encoder.codec} encoder; write .npz instead, or"
            " install PyAV's own wheel: pip install --force-reinstall av"
        )
    return None


class VideoWriter:
    """Checks frames, passes them to a sink, and gives the file its name when it is whole.

    As a context manager it closes on success and aborts on any exception, Ctrl-C included.
    """

    def __init__(
        self, out: str, spec: VideoSpec, sink: FrameSink, files: HiddenFiles | None
    ) -> None:
        """Write to `sink`, which fills `files`, or None for a stream without a name."""
        self._out, self._spec, self._sink, self._files = out, spec, sink, files
        self._count = 0
        self._open = True

    @property
    def count(self) -> int:
        """Frames written so far."""
        return self._count

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 (f, h, w, 3) of the size in the spec.

        Raises VideoError for other frames, for more than were announced, or if writing fails.
        """
        expected = self._spec.size
        if frames.ndim != 4 or frames.shape[1:] != (*expected, 3) or frames.dtype != np.uint8:
            raise VideoError(
                f"got frames {frames.dtype} {frames.shape}, expected uint8"
                f" (f, {expected[0]}, {expected[1]}, 3)"
            )
        if self._count + len(frames) > self._spec.frames:
            raise VideoError(
                f"got more than the {self._spec.frames} frames that {self._out} was opened for"
            )
        with _write_errors(self._out):
            self._sink.write(frames)
        self._count += len(frames)

    def close(self) -> None:
        """Finish the file, write the sidecar and rename both.

        Raises VideoError if frames are missing or writing fails; nothing is left then.
        """
        if not self._open:
            return
        try:
            if self._count != self._spec.frames:
                raise VideoError(
                    f"{self._out} got {self._count} frames, expected {self._spec.frames};"
                    " nothing was written"
                )
            with _write_errors(self._out):
                self._sink.close()
                if self._files is not None:
                    self._files.publish(self._spec.settings)
            self._open = False
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove what was written; harmless after `close`."""
        if not self._open:
            return
        self._open = False
        self._sink.abort()
        if self._files is not None:
            self._files.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _file_sink(kind: OutputKind, part: Path, spec: VideoSpec) -> FrameSink:
    if kind == "png":
        return PngSink(part, spec, ENCODERS[kind])
    part.open("xb").close()  # exclusively, which the libraries do not
    if kind == "npz":
        return NpzSink(part, spec)
    encoder = ENCODERS[kind]
    if kind == "gif":
        return GifSink(part, spec, encoder)
    return ContainerSink(part, spec, encoder)


def _check_place(path: Path, kind: OutputKind, *, replace: bool) -> None:
    if not path.parent.is_dir():
        raise VideoError(f"cannot write {path}: there is no directory {path.parent}; make it first")
    if path.is_symlink():
        raise VideoError(f"cannot write {path}: it is a link; give the place that it leads to")
    if problem := why_not_replaced(path):
        raise VideoError(f"cannot write {path}: {problem}")
    sidecar = sidecar_path(path)
    if sidecar.is_symlink() or sidecar.is_dir():
        raise VideoError(
            f"cannot write {path}: its settings go to {sidecar}, which is no file; move that away "
            "or choose another name"
        )
    probe = partial_of(sidecar)  # the longest name there will be
    with _write_errors(str(path)):
        probe.open("xb").close()
    remove(probe)
    if kind != "png" and path.is_dir():
        raise VideoError(
            f"cannot write {path}: it is a directory; remove it or choose another name"
        )
    full = path.is_dir() and any(path.iterdir()) and not replace
    if kind == "png" and (full or (path.exists() and not path.is_dir())):
        raise VideoError(
            f"cannot write frames to {path}: it exists and is not an empty directory;"
            " remove it or choose another name"
        )


@contextmanager
def _write_errors(out: str) -> Iterator[None]:
    try:
        yield
    except (OSError, av.FFmpegError) as err:
        place = "to standard output" if out == "-" else out
        raise VideoError(f"cannot write {place}: {_reason(err)}") from err


def _reason(err: OSError | av.FFmpegError) -> str:
    if err.errno == errno.EPIPE:
        return "the program that reads it has stopped"
    return cause(err, otherwise="")
