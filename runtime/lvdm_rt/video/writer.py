"""Writing a video: beside its name while it grows, under its name once it is whole."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

import av
import numpy as np

from lvdm_engines.bundle_writer import sync_directory
from lvdm_engines.errors import OptionsError, VideoError
from lvdm_rt.video.arrays import NpzSink, Y4mSink
from lvdm_rt.video.containers import ENCODERS, ContainerSink, FrameSink, GifSink, PngSink
from lvdm_rt.video.sidecar import sidecar_path, sync, write_sidecar
from lvdm_rt.video.spec import Frames, OutputKind, VideoSpec, output_kind


def open_writer(
    out: str, spec: VideoSpec, stdout: BinaryIO | None = None, *, replace: bool = False
) -> "VideoWriter":
    """Open a writer for `out`, whose format its suffix names (see `output_kind`).

    `stdout` is where `-` goes, the process's own if None. A file of that name is replaced when the
    new one is whole; a directory with pictures in it is refused unless `replace` says that the
    caller empties it before the writer is closed.
    Raises OptionsError for an unknown suffix, VideoError if the place cannot be written or the
    encoder is missing.
    """
    kind = check_output(out, replace=replace)
    with _write_errors(out):
        if kind == "y4m":
            sink: FrameSink = Y4mSink(sys.stdout.buffer if stdout is None else stdout, spec)
            return VideoWriter(out, spec, sink, None)
        path = Path(out)
        _check_codec_options(out, kind, spec)
        part = part_path(path)
        _remove(part)  # left by a run that was killed
        try:
            return VideoWriter(out, spec, _file_sink(kind, part, spec), path)
        except BaseException:  # an interrupt as well: nobody owns the file yet
            _remove(part)
            raise


def check_output(out: str, *, replace: bool = False) -> OutputKind:
    """Return the format of `out` after making sure that it can be written, as far as one can know.

    Raises OptionsError for an unknown suffix, VideoError for the place or a missing encoder.
    """
    kind = output_kind(out)
    missing = missing_encoder(kind)
    if missing:
        raise VideoError(f"cannot write {out}: {missing}")
    if kind != "y4m":
        _check_place(Path(out), kind, replace=replace)
    return kind


def _check_codec_options(out: str, kind: OutputKind, spec: VideoSpec) -> None:
    if spec.crf is not None and (kind not in ("mp4", "webm") or not 0 <= spec.crf <= 63):
        raise OptionsError(
            f"got crf {spec.crf} for {out}, expected 0 (best) to 63 and .mp4 or .webm"
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


def part_path(path: Path) -> Path:
    """Return the name that `path` has while it is being written."""
    return path.with_name(f".{path.name}.part")


class VideoWriter:
    """Checks frames, passes them to a sink, and gives the file its name when it is whole.

    As a context manager it closes on success and aborts on any exception, Ctrl-C included.
    """

    def __init__(self, out: str, spec: VideoSpec, sink: FrameSink, path: Path | None) -> None:
        """Write to `sink`; `path` is the final name, or None for a stream without one."""
        self._out, self._spec, self._sink, self._path = out, spec, sink, path
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
                if self._path is not None:
                    _publish(self._path, self._spec.settings)
            self._open = False
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove what was written; harmless after `close`."""
        if not self._open:
            return
        self._open = False
        self._sink.abort()
        if self._path is not None:
            _remove(part_path(self._path))
            _remove(part_path(sidecar_path(self._path)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _file_sink(kind: OutputKind, part: Path, spec: VideoSpec) -> FrameSink:
    if kind == "npz":
        return NpzSink(part, spec)
    encoder = ENCODERS[kind]
    if kind == "png":
        return PngSink(part, spec, encoder)
    if kind == "gif":
        return GifSink(part, spec, encoder)
    return ContainerSink(part, spec, encoder)


def _check_place(path: Path, kind: OutputKind, *, replace: bool) -> None:
    if not path.parent.is_dir():
        raise VideoError(f"cannot write {path}: there is no directory {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise VideoError(f"cannot write {path}: no permission to write in {path.parent}")
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


def _publish(path: Path, settings: str) -> None:
    """Rename the video and its sidecar, in an order that a run killed in between can resume from.

    A new video comes last: a sidecar alone announces nothing, but frames in a directory without
    one would be somebody else's. One that is replaced comes first: the new sidecar must not
    describe the old video.
    """
    sidecar = sidecar_path(path)
    sync(part_path(path))
    if path.is_dir():
        path.rmdir()  # empty, or it would have been refused
    paths = [path, sidecar] if path.exists() else [sidecar, path]
    if settings:
        write_sidecar(part_path(sidecar), settings, part_path(path))
    else:
        paths.remove(sidecar)
    for name in paths:
        part_path(name).replace(name)
    sync_directory(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _write_errors(out: str) -> Iterator[None]:
    try:
        yield
    except (OSError, av.FFmpegError) as err:
        place = "to standard output" if out == "-" else out
        raise VideoError(f"cannot write {place}: {_reason(err)}") from err


def _reason(err: OSError | av.FFmpegError) -> str:
    if err.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return "the disk is full; free some space or write to another place"
    if err.errno == errno.EPIPE:
        return "the program that reads it has stopped"
    return f"{err.strerror or err}"
