"""Where the tensors of a checkpoint lie: in a file, in one of a folder, or spread over several.

Knows names of files; nothing of what is in them but the list of tensors beside sharded ones.
"""

import re
import stat
from pathlib import Path

import msgspec

from lvdm_engines.atomic import open_file, read_file
from lvdm_engines.errors import CheckpointError, cause, one_line, quoted

INDEX = ".index.json"
_IN_FOLDERS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_LONGEST = 1 << 24  # bytes of an index
_NAME = re.compile(r"[\w+-][\w.+ -]*")
_POINTER = b"version https://git-lfs"


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def find_file(path: Path) -> Path:
    """Return the file to read: `path` itself, or the one that a folder is known to hold.

    Raises CheckpointError: missing, unreadable, no ordinary file, or only a pointer to one.
    """
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        held = next((path / name for name in _IN_FOLDERS if is_there(path / name)), None)
        if held is None:
            raise CheckpointError(
                f"{path} is a directory without {', '.join(_IN_FOLDERS)}; name the .ckpt or "
                ".safetensors file in it"
            )
        return find_file(held)
    if not stat.S_ISREG(mode):
        raise CheckpointError(
            f"{path} is a pipe or a device, expected a .ckpt or .safetensors file"
        )
    if _begins(path) == _POINTER:
        raise CheckpointError(
            f"{path} is a git-lfs pointer, not the weights; fetch them with git lfs pull"
        )
    return path


def is_there(path: Path) -> bool:
    """Tell whether there is something under a name; what cannot be seen is not."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError as err:
        raise CheckpointError(f"there is no checkpoint {path}") from err
    except OSError as err:
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {cause(err, 'copy it again')}"
        ) from err


def _begins(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read(len(_POINTER))
    except OSError as err:
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {cause(err, 'copy it again')}"
        ) from err


def read_index(path: Path) -> dict[Path, list[str]]:
    """Return the files beside an index of shards, and the tensors that it says are in each.

    Raises CheckpointError: unreadable, no index, or it names files elsewhere.
    """
    try:
        index = msgspec.json.decode(read_file(path, _LONGEST), type=_Index)
    except (OSError, ValueError, msgspec.DecodeError, RecursionError) as err:
        raise CheckpointError(
            f"{path} is not an index of sharded weights ({one_line(str(err), 120)}); "
            "copy it again, or name a single file"
        ) from err
    shards: dict[Path, list[str]] = {}
    for key, name in index.weight_map.items():
        if not _NAME.fullmatch(name):
            raise CheckpointError(f"{path} names {quoted(name)}, expected a file beside it")
        shards.setdefault(path.with_name(name), []).append(key)
    return shards
