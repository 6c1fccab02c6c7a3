"""Several videos that are shown together: looked at, and brought to one size."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from lvdm_engines.errors import OptionsError
from lvdm_rt.video.look import Look, look

STILL_RATE = Fraction(8)  # of pictures that stand beside no film

Size = tuple[int, int]


@dataclass(frozen=True)
class LookedAt:
    """Videos and their looks, in the order in which they are shown; `size` is (height, width)."""

    paths: tuple[Path, ...]
    looks: tuple[Look, ...]
    size: Size


def look_at(names: Sequence[str], size: Size | None) -> LookedAt:
    """Look at all videos; `size` is what they are brought to, that of all of them if None.

    Raises VideoError for what cannot be read, OptionsError for sizes that differ.
    """
    paths = tuple(Path(name) for name in names)
    looks = tuple(look(path) for path in paths)
    if size is None:
        for path, other in zip(paths, looks, strict=True):
            if other.size != looks[0].size:
                raise OptionsError(
                    f"{paths[0]} has frames of {_sides(looks[0].size)} pixels and {path} of "
                    f"{_sides(other.size)}; give the size that both are brought to (--size)"
                )
    return LookedAt(paths, looks, size or looks[0].size)


def _sides(size: Size) -> str:
    return f"{size[1]}×{size[0]}"
