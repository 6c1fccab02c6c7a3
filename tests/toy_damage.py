"""Ways in which a file may be damaged: bytes, JSON, YAML, tensors, or what lies in its place."""

import datetime as dt
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

Rng = np.random.Generator

_NEST = 100_000
_PLACEHOLDER = "a number that no parser takes"
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 100_000,
    "\0\n\x1b[31m", [], {}, [[1]], {"a": {"b": 1}}, _PLACEHOLDER,
)  # fmt: skip
_SIZES: tuple[Any, ...] = (2, 5, 7, 128, 4096, 16384, 1 << 16, 1 << 20, 10**9, 1 << 40, -7, 0.5)
_DATES = (dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 12))
_YAML_TEXTS = (  # what no writer of YAML makes of plain values
    "1:30:45", "190:20:30.15", "9" * 5000, "0x" + "f" * 5000, "1e400", "-.inf", ".nan",
    "2020-02-31", "2020-01-01 00:00:00 +99:99", "? [1, 2] : 3", "{[1]: 2}", "{{}: 2}",
    "!!binary aGFja2Vk", "!!binary =", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]",
    "!!python/object:os.x {}", "!!int x", "!!float ''", "!!map []", "!!seq {}",
    "*nowhere", "&self [*self]", "{<<: 3}", "{<<: [{a: 1}, 3]}", "{a: 1, a: 2}", "'", "\t- x",
    "%TAG ! x", "--- 1", "\x07", "\ufeff", "\x85", "[" * 5000, "[" * 5000 + "]" * 5000,
    "{a: " * 5000 + "}" * 5000, "- " * 5000, "x" * 2_000_000,
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


def _yaml(path: Path, rng: Rng) -> None:
    """Change one value or one key of a YAML document."""
    whole = {"": yaml.safe_load(path.read_text())}
    holder, key = _place(whole, rng)
    how, number = rng.random(), int(rng.integers(1 << 30))
    text = _YAML_TEXTS[number % len(_YAML_TEXTS)]
    if how < 0.35:
        holder[key] = (*_VALUES, *_SIZES, *_DATES)[number % (len(_VALUES + _SIZES) + 2)]
    elif how < 0.7:
        holder[key] = _PLACEHOLDER
    elif how < 0.8:
        for _ in range(number % 40):
            holder[key] = [holder[key]] * 9  # which are aliases of aliases in the file
    elif how < 0.9 and holder is not whole:
        del holder[key]
    elif isinstance(holder[key], dict):
        holder[key][(_PLACEHOLDER, *_VALUES[:11], *_DATES)[number % 14]] = 1
    else:
        holder[key] = [holder[key]] * (number % 4)
    path.write_text(yaml.safe_dump(whole[""]).replace(_PLACEHOLDER, text))


def _size(path: Path, rng: Rng) -> None:
    """Change one number of a JSON text or a YAML document to another that may be too large."""
    whole = {"": yaml.safe_load(path.read_text())}
    places = [(h, k) for h, k in _places(whole) if isinstance(h[k], int) and h[k] is not True]
    holder, key = places[int(rng.integers(len(places)))]
    holder[key] = _SIZES[int(rng.integers(len(_SIZES)))]
    dump = json.dumps if path.suffix == ".json" else yaml.safe_dump
    path.write_text(dump(whole[""]))


def _trained(path: Path, rng: Rng) -> None:
    """Change one tensor of a checkpoint, or what is beside the tensors."""
    content = torch.load(path, weights_only=False)
    state = content["state_dict"]
    name = list(state)[int(rng.integers(len(state)))]
    how = int(rng.integers(4))
    if how < 2:
        state |= _changed_tensor(name, state.pop(name), rng)
    elif how == 2:
        state[name] = state[name].reshape(-1)[:1].expand(state[name].shape)
    else:
        state[name] = (*_VALUES, *_SIZES)[int(rng.integers(len(_VALUES + _SIZES)))]
    torch.save(content, path, _use_new_zipfile_serialization=bool(rng.integers(2)))


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
    """Change one tensor of a safetensors file."""
    tensors, metadata = _read(path)
    name = list(tensors)[int(rng.integers(len(tensors)))]
    tensors |= _changed_tensor(name, tensors.pop(name), rng)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata)


def _changed_tensor(name: str, tensor: torch.Tensor, rng: Rng) -> dict[str, torch.Tensor]:
    """Change name, shape, dtype or values."""
    made: Callable[[], dict[str, torch.Tensor]] = (
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
    )[int(rng.integers(11))]
    return made()


_BYTES: tuple[Callable[[Path, Rng], None], ...]
_BYTES = (_bits, _bits, _bits, _cut, _emptied, _zeros, _more, _other_bytes, _deep)
_PLACES = (_directory, _missing, _link_to_nothing, _link_to_itself)
_KINDS = {
    ".json": (_json, _json, _json, _size),
    ".yaml": (_yaml, _yaml, _yaml, _size),
    ".ckpt": (_trained,),
    ".jsonl": (_lines, _lines, _lines),
    ".safetensors": (_tensors, _described, _header),
}


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata()  # noqa: SIM118


def _changed_json(text: str, rng: Rng) -> str:
    """Replace, drop or add one value anywhere in a JSON text."""
    whole = {"": json.loads(text)}
    holder, key = _place(whole, rng)
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


def _place(whole: Any, rng: Rng) -> tuple[Any, Any]:
    places = list(_places(whole))
    return places[int(rng.integers(len(places)))]


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
