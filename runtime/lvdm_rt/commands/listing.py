"""Files that list prompts, a video for each line, and which of these are made in one call.

Knows such files and names of outputs; nothing of models.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from lvdm_engines.atomic import read_file
from lvdm_engines.errors import OptionsError, cause, quoted
from lvdm_rt.bounds import MAX_FRAMES, MAX_SEED
from lvdm_rt.checks import check_range
from lvdm_rt.commands.outputs import output_names
from lvdm_rt.options import GenerateOptions
from lvdm_rt.text.prompts import check_text


class ListedVideo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line: what to show, and what differs from what is asked for all."""

    prompt: str
    seed: int | None = None
    frames: int | None = None
    out: str | None = None


class Group(NamedTuple):
    """Videos of one length, made in one call: their names and options, in the same order."""

    names: list[str]
    options: list[GenerateOptions]


def read_listing(path: Path) -> tuple[ListedVideo, ...]:
    """Read a list: a line is a prompt, or a JSON object if it begins with a brace.

    Raises OptionsError that names the line.
    """
    listed = [_listed(line, f"{path}, line {number}") for number, line in lines_of(path)]
    if not listed:
        raise OptionsError(f"{path}: holds no prompt, expected one in each line")
    return tuple(listed)


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a list that are not empty, with their numbers from 1 on.

    Raises OptionsError where there is no such file.
    """
    try:
        data = read_file(path).removeprefix(b"\xef\xbb\xbf")
    except OSError as err:
        raise OptionsError(f"{path}: cannot be read: {cause(err, 'give a list')}") from err
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            yield number, line


def _listed(line: bytes, where: str) -> ListedVideo:
    try:
        if line.lstrip().startswith(b"{"):
            listed = msgspec.json.decode(line, type=ListedVideo)
        else:
            listed = ListedVideo(line.decode().strip())
        _check(listed)
    except (msgspec.DecodeError, ValueError, RecursionError, OptionsError) as err:
        raise OptionsError(
            f"{where}: {err}; expected a prompt, or JSON with prompt, seed, frames and out"
        ) from err
    return listed


def _check(listed: ListedVideo) -> None:
    check_text("prompt", listed.prompt)
    check_range("seed", listed.seed or 0, 0, MAX_SEED)
    check_range("frames", 1 if listed.frames is None else listed.frames, 1, MAX_FRAMES)
    if "\0" in (listed.out or ""):
        raise OptionsError(f"got out {quoted(listed.out)}, expected a name without NUL")


def grouped(
    listed: Sequence[ListedVideo], out: str | None, options: GenerateOptions
) -> list[Group]:
    """Return the videos of a list by their length, in the order in which lengths come up.

    Raises OptionsError for a line without a name if `out` is None, and a name that comes twice.
    """
    groups: dict[int, Group] = {}
    names = listed_names(listed, out)
    for name, line in zip(names, listed, strict=True):
        frames = options.frames if line.frames is None else line.frames
        seed = options.seed if line.seed is None else line.seed
        group = groups.setdefault(frames, Group([], []))
        group.names.append(name)
        group.options.append(replace(options, prompt=line.prompt, seed=seed, frames=frames))
    return list(groups.values())


def listed_names(listed: Sequence[ListedVideo], out: str | None) -> list[str]:
    """Return where each video of a list goes. Raises OptionsError as `grouped` does."""
    if out is None and any(line.out is None for line in listed):
        raise OptionsError("a prompt in the list names no out; give it one, or --out for all")
    usual = [""] * len(listed) if out is None else output_names(out, len(listed))
    names = [
        name if line.out is None else line.out for name, line in zip(usual, listed, strict=True)
    ]
    taken: set[str] = set()
    for name in names:
        place = os.path.realpath(name)
        if name == "-" or place in taken:
            raise OptionsError(
                f"got out {name} in a list, expected a file for each line and no name twice"
            )
        taken.add(place)
    return names
