"""Sinks without a codec: frames as a NumPy archive, and uncompressed y4m to a stream."""

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from av.video.frame import VideoFrame
from numpy.lib import format as npy

from lvdm_rt.video.spec import Frames, VideoSpec


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
