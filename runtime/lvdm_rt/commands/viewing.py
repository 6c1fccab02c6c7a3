"""The flags of `sheet` and `compare`, which show videos; knows click, and imports nothing heavy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.completion import PATH
from lvdm_engines.errors import quoted
from lvdm_engines.ranges import NumberRange, WholeRange

if TYPE_CHECKING:
    from collections.abc import Callable


def read_size(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[int, int] | None:
    """Read `64` or `96x64` (width x height) as (height, width)."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(re.fullmatch("0*[1-9][0-9]{0,4}", side) for side in sides):
        raise click.BadParameter(
            f"{quoted(text)} is not a size: give 64, or 96x64 (width x height)"
        )
    return int(sides[-1]), int(sides[0])


_INPUTS = click.argument("inputs", nargs=-1, required=True, metavar="IN…", shell_complete=PATH)
_SHARED = (
    click.option("--labels", is_flag=True, help="Write the names of files into it."),
    click.option(
        "--size",
        callback=read_size,
        metavar="N|WxH",
        help="Pixels of each video: cropped around the middle, and resized. Default: its own.",
    ),
    click.option("--force", is_flag=True, help="Replace OUT."),
)


def sheet_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of `sheet`."""
    own = (
        _INPUTS,
        click.option("-o", "--out", required=True, metavar="OUT.png", shell_complete=PATH),
        click.option(
            "--every",
            type=WholeRange(1),
            metavar="N",
            help="Show every Nth frame. Default: as many as fill one row a video.",
        ),
        click.option(
            "--columns", type=WholeRange(1, 1000), default=8, show_default=True, metavar="N"
        ),
    )
    return _with(function, own)


def compare_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of `compare`."""
    own = (
        _INPUTS,
        click.option(
            "-o", "--out", required=True, metavar="OUT", shell_complete=PATH,
            help="What `generate` writes: .mp4, .webm, .gif, .npz, a directory, or -.",
        ),
        click.option("--fps", type=NumberRange(0.1, 1000), metavar="F",
                     help="Frames per second. Default: those of all."),
    )  # fmt: skip
    return _with(function, own)


def _with(function: Callable[..., Any], own: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    for add in reversed((*own, *_SHARED)):
        function = add(function)
    return function
