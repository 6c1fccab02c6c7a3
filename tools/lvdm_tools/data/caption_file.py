"""`captions.jsonl`: what the videos of a folder show, one JSON object a line."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from lvdm_engines.atomic import read_file, whole_file
from lvdm_engines.errors import (
    OptionsError,
    TrainingError,
    cause,
    one_line,
    quoted,
)
from lvdm_rt.text.prompts import check_text

NAME = "captions.jsonl"


class Caption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One caption of a video; `file` is its path below the folder, with forward slashes.

    A video may have several captions: clips take turns.
    """

    file: str
    caption: str


def read_captions(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the captions of each file, in the order of their lines; none if there is no such file.

    Raises TrainingError: unreadable, or a line that is no caption.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    captions: dict[str, tuple[str, ...]] = {}
    try:
        lines = read_file(path).removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as err:
        raise TrainingError(f"cannot read {path}: {cause(err, 'restore it')}") from err
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            read = msgspec.json.decode(line, type=Caption)
            check_text("caption", read.caption)
        except (msgspec.MsgspecError, UnicodeDecodeError, OptionsError) as err:
            raise TrainingError(
                f"{path}, line {number}: {one_line(str(err), 200)}; expected "
                f'{{"file": "sky.mp4", "caption": "clouds at noon"}}, got {quoted(line[:80])}'
            ) from err
        captions[read.file] = (*captions.get(read.file, ()), read.caption)
    return captions


def add_captions(folder: Path, captions: Mapping[str, str]) -> None:
    """Put captions of files among those that are there, in place of older ones of the same files.

    Raises TrainingError: what is there is no caption file, or it cannot be written.
    """
    every = read_captions(folder) | {file: (text,) for file, text in captions.items()}
    try:
        with whole_file(folder / NAME) as file:
            for name, texts in every.items():
                for text in texts:
                    file.write(msgspec.json.encode(Caption(name, text)) + b"\n")
    except OSError as err:
        raise TrainingError(f"cannot write {folder / NAME}: {cause(err)}") from err
