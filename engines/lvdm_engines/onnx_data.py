"""Where an ONNX file says that its weights lie, read from the file's own bytes.

An ONNX file is a protobuf message: numbered fields, of which those that may hold tensors are
followed, and everything else is skipped by its length. Nothing is loaded.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from lvdm_engines.errors import BundleError

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # protobuf's wire types; groups are of no ONNX file
_TAG_BITS = 32
_ENTRY = "entry"
# by message, the fields that may hold tensors, as onnx.proto numbers them
_HOLDERS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: _ENTRY},
}


def weight_files(path: Path) -> set[bytes]:
    """Return the names of the files that the tensors of an ONNX file point to, as they stand in it.

    Raises BundleError for a file that is no ONNX file; OSError.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_locations(data, "model", 0, len(data)))
    except (ValueError, IndexError, RecursionError) as err:
        raise BundleError(f"{path}: is no ONNX file ({err}); export the bundle again") from err


def _locations(data: mmap.mmap, message: str, start: int, end: int) -> Iterator[bytes]:
    if message == _ENTRY:
        fields = list(_fields(data, start, end))
        if any(number == 1 and data[a:b] == b"location" for number, a, b in fields):
            yield from (data[a:b] for number, a, b in fields if number == 2)
        return
    followed = _HOLDERS[message]
    for number, a, b in _fields(data, start, end):
        if number in followed:
            yield from _locations(data, followed[number], a, b)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of every field that has a length."""
    at = start
    while at < end:
        tag, at = _number(data, at)
        if tag >> _TAG_BITS:  # which engines cut off, and so see another field
            raise ValueError("a field of no number")
        kind, length = tag & 7, 0
        if kind == _VARINT:
            _, at = _number(data, at)
        elif kind == _BYTES:
            length, at = _number(data, at)
        elif kind in (_EIGHT, _FOUR):
            length = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + length > end:
            raise ValueError("a field ends behind its message")
        if kind == _BYTES:
            yield tag >> 3, at, at + length
        at += length


def _number(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than ten bytes")
