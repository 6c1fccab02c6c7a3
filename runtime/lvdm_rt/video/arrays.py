"""Without a codec: frames to and from a NumPy archive, and uncompressed y4m to a stream."""

import errno
import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from tokenize import TokenError
from typing import IO, BinaryIO, TypeAlias

import numpy as np
from av.video.frame import VideoFrame
from numpy.lib import format as npy

from lvdm_engines.errors import VideoError, cause
from lvdm_rt.video.spec import Frames, VideoSpec

Moment: TypeAlias = tuple[Fraction, Fraction]  # start and length in seconds
Timed: TypeAlias = tuple[Fraction, Fraction, VideoFrame]

_SMALL = 1 << 10  # bytes of a file that holds one number
# what archives that are damaged, locked or of another kind end in
_FAULTS = (
    OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, OverflowError,
    NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, MemoryError,
    SyntaxError, TokenError,
)  # fmt: skip


def read_npz(path: Path, max_pixels: int) -> Iterator[Timed]:
    """Yield the frames of an .npz with `frames` uint8 (f, h, w, 3) and `fps`, one at a time.

    Raises VideoError for any other file, and for frames of more than `max_pixels`.
    """
    with _opened(path, max_pixels) as (member, shape, fps):
        for index in range(shape[0]):
            pixels = np.frombuffer(member.read(math.prod(shape[1:])), np.uint8)
            frame = VideoFrame.from_ndarray(pixels.reshape(shape[1:]), format="rgb24")
            yield index / fps, 1 / fps, frame


def npz_last_moment(path: Path, max_pixels: int) -> Moment:
    """Return when the last frame of such a file is shown. Raises VideoError as `read_npz` does."""
    with _opened(path, max_pixels) as (_, shape, fps):
        return (shape[0] - 1) / fps, 1 / fps


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[tuple[IO[bytes], tuple[int, ...], Fraction]]:
    """Give the bytes of the frames, their shape and their rate."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("frames.npy") as member:
            fps = _rate(archive)
            npy.read_magic(member)
            shape, turned, dtype = npy.read_array_header_1_0(member)
            _check(path, shape, np.dtype(np.void) if turned else dtype, max_pixels)
            yield member, shape, fps
    except _FAULTS as err:
        if isinstance(err, OSError) and err.errno not in (None, errno.EINVAL):
            raise VideoError(f"cannot read {path}: {cause(err)}") from err
        raise VideoError(
            f"cannot read {path}: it is damaged or not of this program ({err}); expected frames "
            "uint8 (f, h, w, 3) and fps"
        ) from err


def _rate(archive: zipfile.ZipFile) -> Fraction:
    if archive.getinfo("fps.npy").file_size > _SMALL:
        raise ValueError("fps is not one number")
    with archive.open("fps.npy") as member:
        fps = Fraction(float(npy.read_array(member))).limit_denominator(1001)
    if fps <= 0:
        raise ValueError(f"fps is {fps}")
    return fps


def _check(path: Path, shape: tuple[int, ...], dtype: object, max_pixels: int) -> None:
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise VideoError(
            f"cannot read {path}: got frames {dtype} {shape}, expected uint8 (f, h, w, 3)"
        )
    if shape[1] * shape[2] > max_pixels:
        raise too_large(path, shape[2], shape[1], max_pixels)


def too_large(path: Path, width: int, height: int, most: int) -> VideoError:
    """Return the error of pictures that would take too much memory."""
    return VideoError(
        f"cannot read {path}: its pictures have {width} x {height} pixels, expected at most {most} "
        "in all; give smaller ones, or raise the limit with --max-pixels"
    )


class NpzSink:
    """`numpy.load` gives `frames` uint8 (f, h, w, 3), `fps` and `settings`.

    Frames go straight into the archive: the header is known because the count is.
    """

    def __init__(self, path: Path, spec: VideoSpec) -> None:
        """Open `path` and write the header of `frames`."""
        self._spec = spec
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        try:
            self._member = self._zip.open(_member("frames"), "w", force_zip64=True)
            header = {
                "descr": npy.dtype_to_descr(np.dtype(np.uint8)),
                "fortran_order": False,
                "shape": (spec.frames, *spec.size, 3),
            }
            npy.write_array_header_1_0(self._member, header)
        except OSError:
            self.abort()
            raise

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 (f, h, w, 3)."""
        self._member.write(np.ascontiguousarray(frames).data)

    def close(self) -> None:
        """Add the small arrays and finish the archive."""
        self._member.close()
        spec = self._spec
        for name, value in (("fps", np.float64(spec.fps)), ("settings", np.str_(spec.settings))):
            with self._zip.open(_member(name), "w") as member:
                npy.write_array(member, np.asarray(value), allow_pickle=False)
        self._zip.close()

    def abort(self) -> None:
        """Close without caring what the archive holds."""
        # A failed disk fails again when the directory is written; the first error is the one told.
        with suppress(OSError):
            self._member.close()
        with suppress(OSError):
            self._zip.close()


def _member(name: str) -> zipfile.ZipInfo:
    # A fixed date (ZipInfo's own) keeps equal frames equal as files.
    return zipfile.ZipInfo(f"{name}.npy")


class Y4mSink:
    """YUV4MPEG2 with full chroma (4:4:4), which has no trouble with odd sizes.

    The format cannot name its matrix; BT.601, limited range, is what readers assume.
    """

    def __init__(self, stream: BinaryIO, spec: VideoSpec) -> None:
        """Write the header to `stream`, which stays the caller's to close."""
        self._stream = stream
        height, width = spec.size
        rate = f"{spec.fps.numerator}:{spec.fps.denominator}"
        self._stream.write(f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C444\n".encode())

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 (f, h, w, 3)."""
        for pixels in frames:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            planes = frame.reformat(
                format="yuv444p", dst_colorspace="ITU601", dst_color_range="MPEG"
            ).to_ndarray()  # (3, h, w)
            self._stream.write(b"FRAME\n" + planes.tobytes())

    def close(self) -> None:
        """Hand the last bytes on."""
        self._stream.flush()

    def abort(self) -> None:
        """Leave the stream as it is."""
