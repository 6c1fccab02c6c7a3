"""Models to export: the authors' YAML and checkpoints, our JSON and safetensors.

A case is built as far as the last network's weights; the export itself takes half a minute.
"""

import io
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import toy_inputs
from fuzz.kind import Kind, Rng, command, outputs
from toy_checkpoints import write_ours
from toy_damage import damage

OFFICIAL = ("model.yaml", "model.ckpt")
OURS = ("unet/model.safetensors", "autoencoder/model.safetensors")
_OPCODES = [code.code.encode("latin-1") for code in pickletools.opcodes]


class _WeightsReadError(Exception):
    """All networks have their weights; what follows is the export."""


def prepare_official(folder: Path) -> None:
    """Write a tiny model as the authors' trainer does, under other names for their parts."""
    toy_inputs.configuration(folder / "model.yaml")
    toy_inputs.checkpoint(folder / "model.ckpt")


def prepare_ours(folder: Path) -> None:
    """Write a tiny model in our own format."""
    write_ours(folder)


def build(folder: Path, *words: str) -> int:
    """Build until the last network has its weights."""
    from lvdm_export import build as builder

    def export(_target: Any, _graph: Any, names: tuple[str, ...]) -> Any:
        if names in (("encoder",), ("decoder",)):
            return type("Nothing", (), {"facts": None, "parity": {}, "references": {}})
        raise _WeightsReadError

    builder.export_graph = export  # type: ignore[assignment]
    before = {path.name for path in folder.iterdir()}
    try:
        code = command(["build-engines", *words, "--out", "bundle", "-q"], "lvdm_export")
    except _WeightsReadError:
        code = 0
    outputs(folder, before, {})
    return code


def build_official(folder: Path) -> int:
    """Build from the authors' files."""
    pair = [str(folder / name) for name in OFFICIAL]
    return build(folder, "--predict", *pair, "--interpolate", *pair)


def build_ours(folder: Path) -> int:
    """Build from our own files."""
    unet = folder / "unet"
    autoencoder = str(folder / "autoencoder" / "model.safetensors")
    pair = [str(unet / "model.json"), str(unet / "model.safetensors")]
    return build(folder, "--short", *pair, "--autoencoder", autoencoder)


def yaml(folder: Path, rng: Rng) -> str:
    """Change the YAML: values, keys, aliases, tags, numbers, its text."""
    return damage(folder / "model.yaml", rng)


def checkpoint(folder: Path, rng: Rng) -> str:
    """Change tensors of a checkpoint, its bytes, its archive, or its pickle."""
    path = folder / "model.ckpt"
    if rng.random() < 0.35:
        return damage(path, rng)
    if rng.random() < 0.2:  # the index of the archive, which says where storages lie
        data = bytearray(path.read_bytes())
        for place in rng.integers(len(data) - 2000, len(data), size=rng.integers(1, 6)):
            data[place] = int(rng.integers(256))
        path.write_bytes(data)
        return "index of the archive"
    return _repacked(path, rng)


def _repacked(path: Path, rng: Rng) -> str:
    way = "not found"
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("data.pkl"):
                data, way = _pickle(data, rng)
            new.writestr(info, data)
    path.write_bytes(packed.getvalue())
    return way


def _pickle(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Put in other instructions, or other numbers: sizes, offsets, strides, ids of objects."""
    steps = list(pickletools.genops(data))
    changed = bytearray(data)
    if rng.random() < 0.5:
        code = _OPCODES[int(rng.integers(len(_OPCODES)))]
        place = int(steps[int(rng.integers(len(steps)))][2] or 0)
        more = rng.bytes(int(rng.integers(9)))
        changed[place : place + int(rng.integers(2))] = code + more
        return bytes(changed), f"opcode {code!r} at {place}"
    numbers = [(at, code) for code, _, at in steps if code.name in ("BININT1", "BININT2", "BININT")]
    place, code = numbers[int(rng.integers(len(numbers)))]
    value = (0, 1, 255, -1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 64)[int(rng.integers(8))]
    long = value.to_bytes(9, "little", signed=True)
    length = 1 + {"BININT1": 1, "BININT2": 2, "BININT": 4}[code.name]
    truth = rng.random() < 0.1
    changed[place : place + length] = b"\x88" if truth else b"\x8a\x09" + long
    return bytes(changed), f"number {True if truth else value} at {place}"


def safetensors(folder: Path, rng: Rng) -> str:
    """Change a safetensors file of ours, its header, or the JSON beside it."""
    names = (*OURS, "unet/model.json", "autoencoder/model.json")
    name = names[int(rng.integers(len(names)))]
    return f"{name}: {damage(folder / name, rng)}"


KINDS = (
    Kind("yaml", prepare_official, yaml, build_official, daily=6),
    Kind("checkpoint", prepare_official, checkpoint, build_official, daily=12),
    Kind("safetensors", prepare_ours, safetensors, build_ours, daily=6),
)
