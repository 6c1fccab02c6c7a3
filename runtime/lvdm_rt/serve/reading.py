"""A process of its own that reads an uploaded film, so that one which breaks FFmpeg breaks no more.

    python -m lvdm_rt.serve.reading UPLOAD FRAMES.npy HEIGHT WIDTH FPS COUNT PIXELS SECONDS BYTES

Writes the last COUNT frames, or prints in one line why it cannot and exits with 1. Has no rights
that its parent has not, but limits of time and memory, except on Windows.
"""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from lvdm_engines.errors import VideoError, one_line
from lvdm_rt.video import ReadSpec
from lvdm_rt.video.reader import read_last_frames


def _limit(seconds: int, memory: int) -> None:
    if sys.platform == "win32":  # has no such limits
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(arguments: list[str]) -> int:
    """Read and write."""
    upload, frames = map(Path, arguments[:2])
    height, width = map(int, arguments[2:4])
    count, pixels, seconds, memory = map(int, arguments[5:])
    _limit(seconds, memory)
    spec = ReadSpec(size=(height, width), fps=Fraction(arguments[4]), max_pixels=pixels, warn=False)
    try:
        np.save(frames, read_last_frames(upload, spec, count), allow_pickle=False)
    except VideoError as err:
        sys.stdout.write(one_line(str(err)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
