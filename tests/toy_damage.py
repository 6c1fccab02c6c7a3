"""Ways in which a file may be damaged: bytes, JSON, tensors, or what lies in its place."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

Rng = np.random.Generator

_NEST = 100_000
_PLACEHOLDER = "a number that no parser takes"
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 100_000,
    "\0\n\x1b[31m", [], {}, [[1]], {"a": {"b": 1}}, _PLACEHOLDER,
)  # fmt: skip
_DTYPES = (torch.float64, torch.int32, torch.bool, torch.bfloat16, torch.uint8, torch.complex64)


def damage(path: Path, rng: Rng) -> str:
    """Damage a file in one of the ways that its kind allows; return which."""
    ways = [*_BYTES, *_PLACES, *(5 * _KINDS.get(path.suffix, ()))]
    way = ways[rng.integers(len(ways))]
    way(path, rng)
    return way.__name__.strip("_")


def _bits(path: Path, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    reach = len(data) if rng.random() < 0.3 else min(len(data), 2000)  # headers are at the start
    for place in rng.integers(reach, size=rng.integers(1, 9)):
        data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def _cut(path: Path, rng: Rng) -> None:
    path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size))])


def _emptied(path: Path, _: Rng) -> None:
    path.write_bytes(b"")


def _zeros(path: Path, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    first = int(rng.integers(len(data)))
    last = min(len(data), first + int(rng.integers(1, 4096)))
    data[first:last] = bytes(last - first)
    path.write_bytes(data)


def _more(path: Path, rng: Rng) -> None:
    path.write_bytes(path.read_bytes() + rng.bytes(int(rng.integers(1, 100))))


def _other_bytes(path: Path, rng: Rng) -> None:
    path.write_bytes(rng.bytes(int(rng.integers(1, 5000))))


def _deep(path: Path, _: Rng) -> None:
    path.write_text("[" * _NEST + "]" * _NEST)


def _directory(path: Path, _: Rng) -> None:
    path.unlink()
    path.mkdir()


def _missing(path: Path, _: Rng) -> None:
    path.unlink()


def _link_to_nothing(path: Path, _: Rng) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere") / path.name)


def _link_to_itself(path: Path, _: Rng) -> None:
    path.unlink()
    path.symlink_to(path)


def _json(path: Path, rng: Rng) -> None:
    path.write_text(_changed_json(path.read_text(), rng))


def _lines(path: Path, rng: Rng) -> None:
    lines = path.read_text().splitlines()
    number = int(rng.integers(len(lines)))
    lines[number] = _changed_json(lines[number], rng)
    path.write_text("\n".join(lines) + "\n")


def _header(path: Path, rng: Rng) -> None:
    """Change what a safetensors file says of its tensors."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = _changed_json(data[8:end].decode(), rng).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])


def _described(path: Path, rng: Rng) -> None:
    """Change the JSON in a safetensors file's metadata, or leave it out."""
    tensors, metadata = _read(path)
    key = next(iter(metadata or {"none": ""}))
    metadata = {key: _changed_json((metadata or {key: "{}"})[key], rng)}
    save_file(tensors, path, None if rng.random() < 0.2 else metadata)


def _tensors(path: Path, rng: Rng) -> None:
    """Change one tensor: name, shape, dtype or values."""
    tensors, metadata = _read(path)
    name = list(tensors)[int(rng.integers(len(tensors)))]
    tensor = tensors.pop(name)
    made = (
        dict,
        lambda: {name + "x": tensor},
        lambda: {name: tensor, "more": tensor.clone()},
        lambda: {name: tensor.reshape(-1)},
        lambda: {name: tensor[None].repeat(2, *[1] * tensor.dim())},
        lambda: {name: tensor.reshape(-1)[:0]},
        lambda: {name: tensor.to(_DTYPES[int(rng.integers(len(_DTYPES)))])},
        lambda: {name: torch.full_like(tensor, float("nan"))},
        lambda: {name: torch.full_like(tensor, float("inf"))},
        lambda: {name: torch.full_like(tensor, 3e38)},
        lambda: {name: -tensor - 1},
    )[int(rng.integers(11))]()
    save_file({key: value.contiguous() for key, value in (tensors | made).items()}, path, metadata)


_BYTES: tuple[Callable[[Path, Rng], None], ...]
_BYTES = (_bits, _bits, _bits, _cut, _emptied, _zeros, _more, _other_bytes, _deep)
_PLACES = (_directory, _missing, _link_to_nothing, _link_to_itself)
_KINDS = {
    ".json": (_json, _json, _json),
    ".jsonl": (_lines, _lines, _lines),
    ".safetensors": (_tensors, _described, _header),
}


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata()  # noqa: SIM118


def _changed_json(text: str, rng: Rng) -> str:
    """Replace, drop or add one value anywhere in a JSON text."""
    whole = {"": json.loads(text)}
    places = list(_places(whole))
    holder, key = places[int(rng.integers(len(places)))]
    how = rng.random()
    if how < 0.6:
        holder[key] = _VALUES[int(rng.integers(len(_VALUES)))]
    elif how < 0.75:
        holder[key] = _NESTED
    elif how < 0.9 and holder is not whole:
        del holder[key]
    elif isinstance(holder[key], dict):
        holder[key] = holder[key] | {"more": _VALUES[int(rng.integers(len(_VALUES)))]}
    else:
        holder[key] = [holder[key], holder[key]]
    changed = json.dumps(whole[""])
    changed = changed.replace(json.dumps(_PLACEHOLDER), "9" * 5000)
    return changed.replace(json.dumps(_NESTED), "[" * _NEST + "]" * _NEST)


_NESTED = "a nest that no parser follows"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Walk containers; yield each with each of its keys or indices."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def copied(folder: Path, to: Path) -> Path:
    """Copy a folder, whatever was there before."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to, symlinks=True))
