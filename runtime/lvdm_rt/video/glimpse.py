"""Small pictures in a file that is rewritten again and again, for whoever has it open.

Each is whole under its name at once; none is forced onto the disk, as the next one comes soon.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from lvdm_engines.atomic import partial_of, remove
from lvdm_engines.errors import OptionsError, VideoError, cause
from lvdm_rt.video.containers import ENCODERS, GifSink
from lvdm_rt.video.picture import resize
from lvdm_rt.video.png_file import png_bytes
from lvdm_rt.video.spec import Frames, VideoSpec

SUFFIXES = (".png", ".gif")
_RATE = Fraction(4)  # pictures of a GIF per second


def check_suffix(path: Path) -> None:
    """Raise OptionsError for a name whose format is none of `SUFFIXES`."""
    if path.suffix.lower() not in SUFFIXES:
        raise OptionsError(
            f"cannot write {path}: a preview is a picture; give a name with {' or '.join(SUFFIXES)}"
        )


def write_glimpse(path: Path, rows: Frames, size: tuple[int, int]) -> None:
    """Write pictures uint8 (rows, t, h, w, 3), each brought to `size`, rows below each other.

    As a PNG those of a row stand side by side, as a GIF they follow each other. Raises VideoError.
    """
    part = partial_of(path)
    try:
        drawn = [
            np.concatenate([resize(row[t], size) for row in rows]) for t in range(len(rows[0]))
        ]
        if path.suffix.lower() == ".gif":
            _write_gif(part, np.stack(drawn))
        else:
            part.write_bytes(png_bytes(np.concatenate(drawn, axis=1)))
        part.replace(path)
    except (OSError, av.FFmpegError) as err:
        raise VideoError(f"cannot write {path}: {cause(err)}") from err
    finally:
        remove(part)


def _write_gif(path: Path, frames: Frames) -> None:
    size = (frames.shape[1], frames.shape[2])
    sink = GifSink(path, VideoSpec(frames=len(frames), size=size, fps=_RATE), ENCODERS["gif"])
    sink.write(frames)
    sink.close()
