"""How a GIF ends, by its blocks (GIF89a, sections 15 to 27): decoders do not tell."""

import mmap
from pathlib import Path
from typing import Literal

_HEADER = 13  # signature and logical screen
_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, 0x3B


def gif_ending(path: Path) -> Literal["whole", "open", "cut"]:
    """Tell whether a GIF ends as it should, without its last byte, or inside of a block.

    Whatever follows the last picture, such as zeros, is no part of it. Raises OSError.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            at = _HEADER + _table(data[10])
            while at < len(data) and data[at] in (_EXTENSION, _PICTURE):
                at = _after_block(data, at)
        except IndexError:
            return "cut"
        if at > len(data):
            return "cut"
        return "whole" if at < len(data) and data[at] == _TRAILER else "open"


def _table(flags: int) -> int:
    """Return the bytes of a table of colours."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_block(data: mmap.mmap, at: int) -> int:
    if data[at] == _PICTURE:
        at += 10 + _table(data[at + 9]) + 1
    else:
        at += 2
    while data[at]:  # parts, each behind its length, until one of none
        at += 1 + data[at]
    return at + 1
