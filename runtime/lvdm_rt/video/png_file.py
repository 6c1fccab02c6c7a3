"""One picture as a PNG, in memory or as a file that is whole or not there at all."""

from fractions import Fraction
from pathlib import Path

import av

from lvdm_engines.atomic import new_directory, sync, sync_directory
from lvdm_engines.errors import VideoError, cause
from lvdm_rt.video.containers import ENCODERS, PngEncoder, PngSink
from lvdm_rt.video.spec import Frames, VideoSpec


def png_bytes(pixels: Frames) -> bytes:
    """Return uint8 (h, w, 3) as the bytes of a PNG file."""
    height, width = pixels.shape[:2]
    return PngEncoder((height, width)).encode(pixels)


def write_png(path: Path, pixels: Frames) -> None:
    """Write uint8 (h, w, 3) to `path`, replacing what is there.

    Raises OptionsError for a size that no format has, VideoError if it cannot be written.
    """
    height, width = pixels.shape[:2]
    spec = VideoSpec(frames=1, size=(height, width), fps=Fraction(1))
    try:
        with new_directory(path) as folder:
            sink = PngSink(folder / "frames", spec, ENCODERS["png"])
            sink.write(pixels[None])
            (made,) = (folder / "frames").iterdir()
            sync(made)
            made.replace(path)
            sync_directory(path.parent)
    except (OSError, av.FFmpegError) as err:
        raise VideoError(f"cannot write {path}: {cause(err)}") from err
