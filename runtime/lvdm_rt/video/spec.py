"""What a video to be written is, and which format a file name asks for; imports no codec."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from lvdm_engines.errors import OptionsError, quoted

Frames: TypeAlias = npt.NDArray[np.uint8]  # (f, h, w, 3)
OutputKind: TypeAlias = Literal["mp4", "webm", "gif", "npz", "png", "y4m"]
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

_BY_SUFFIX: dict[str, OutputKind] = {".mp4": "mp4", ".webm": "webm", ".gif": "gif", ".npz": "npz"}
# MP4, WebM and GIF all fail somewhere above this; every real size is far below.
_MAX_SIDE = 16384


@dataclass(frozen=True, kw_only=True)
class VideoSpec:
    """One video to write: its length is known before its first frame.

    `frames` is a count, `size` is (height, width) in pixels, `settings` is the text (JSON, one
    object) that goes into the container's comment and the sidecar, or "" for neither. `crf` is the
    quality of mp4 and webm, smaller is better. `sound` is a video whose sound is kept for its first
    `seconds`, where the format has sound.
    """

    frames: int
    size: tuple[int, int]
    fps: Fraction
    settings: str = ""
    crf: int | None = None
    sound: tuple[Path, Fraction] | None = None

    def __post_init__(self) -> None:
        """Refuse what no format can hold.

        Raises OptionsError.
        """
        if self.frames < 1:
            raise OptionsError(f"{self.frames} frames asked of a video, expected 1 or more")
        if not all(1 <= side <= _MAX_SIDE for side in self.size):
            raise OptionsError(f"frame size {self.size} asked, expected sides of 1 to {_MAX_SIDE}")
        if not Fraction(1, 10) <= self.fps <= 1000:
            raise OptionsError(f"{float(self.fps):g} frames per second asked, expected 0.1 to 1000")
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise OptionsError(f"got crf {quoted(self.crf)}, expected 0 (best) to 63")


def output_kind(out: str) -> OutputKind:
    """Return the format that `out` asks for: by suffix, `-`, or a directory.

    A trailing slash, an existing directory or a name without suffix means PNG frames.
    Raises OptionsError for a suffix that no writer has, or if `out` has no name of its own.
    """
    if out == "-":
        return "y4m"
    path = Path(out)
    if not path.name or path.name == "..":
        raise OptionsError(f"cannot write {out!r}: it names no file; give a name, e.g. sky.mp4")
    if out.endswith("/") or path.is_dir() or not path.suffix:
        return "png"
    kind = _BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise OptionsError(
            f"cannot write {out!r}: suffix {path.suffix!r} is not one of"
            f" {', '.join(_BY_SUFFIX)}; a name without suffix or with a trailing slash is a"
            " directory of PNG frames, and - is y4m on standard output"
        )
    return kind
