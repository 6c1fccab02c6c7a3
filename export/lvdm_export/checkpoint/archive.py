"""PyTorch checkpoint files as memory-mapped tensors.

Reads the zip format and the older single-stream format. Tensors are views of a private mapping
of the file: only those that are touched take memory, and nothing is written back.
"""

import math
import mmap
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lvdm_engines.atomic import open_file
from lvdm_engines.errors import CheckpointError, cause
from lvdm_export.checkpoint.unpickle import StorageRef, TensorRef, first_line, unpickle

_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_PROTOCOL = 1001
_ZIP_LOCAL_HEADER = 30
_INDEX = 1 << 16  # bytes at the end of a zip file where its index begins or is told of
_UNPACKED = 16  # times the file's size; tensors hardly shrink when packed, zip bombs do

# What broken or hostile zip files make the standard reader raise.
_ZIP_FAULTS = (
    zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error,
    zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Archive:
    """An open checkpoint: `root` is what was pickled, with `TensorRef` for tensors.

    `starts` is the byte position of each storage in `data`; `sums` has what a zip file says of it,
    its length and its CRC-32. Tensors keep `data` alive.
    """

    path: Path
    root: Any
    data: mmap.mmap
    starts: dict[str, int]
    copies: dict[str, bytearray] = field(default_factory=dict)
    sums: dict[str, tuple[int, int]] = field(default_factory=dict)

    def tensor(self, ref: TensorRef, key: str) -> torch.Tensor:
        """Return a tensor of the file; `key` names it in messages.

        What a zip file holds of it is held against its CRC-32, once.

        Raises CheckpointError where the file is too short for it, or other than it says.
        """
        dtype: torch.dtype = getattr(torch, ref.storage.dtype)
        if 0 in ref.shape:
            return torch.empty(ref.shape, dtype=dtype)
        if math.prod(ref.shape) > ref.storage.numel:
            raise CheckpointError(
                f"{self.path}: {key} holds each value many times over; save it again with "
                "torch.save, each tensor cloned"
            )
        flat = self._storage(ref.storage, dtype, key)
        stored = flat.as_strided(ref.shape, ref.stride, ref.offset)
        stored = stored.conj().resolve_conj() if ref.conjugate else stored
        return -stored if ref.negative else stored

    def _check(self, name: str, start: int, key: str) -> None:
        size, expected = self.sums.pop(name, (0, 0))  # zero where torch was told to make none
        if expected and zlib.crc32(memoryview(self.data)[start : start + size]) != expected:
            raise CheckpointError(
                f"{self.path}: the data of {key} is not what was saved (its CRC-32 differs); "
                "copy or download the checkpoint again"
            )

    def _storage(self, ref: StorageRef, dtype: torch.dtype, key: str) -> torch.Tensor:
        buffer: Any = self.data
        start = self.starts.get(ref.key)
        if ref.key in self.copies:
            buffer, start = self.copies[ref.key], 0
        if start is None or start + ref.numel * dtype.itemsize > len(buffer):
            raise CheckpointError(
                f"{self.path}: the data of {key} is missing or cut off; "
                "copy or download the checkpoint again"
            )
        if buffer is self.data:
            self._check(ref.key, start, key)
        if start % dtype.itemsize:  # only the older format packs storages without alignment
            end = start + ref.numel * dtype.itemsize
            buffer, start = bytearray(memoryview(buffer)[start:end]), 0
        return torch.frombuffer(buffer, dtype=dtype, count=ref.numel, offset=start)


def open_archive(path: Path) -> Archive:
    """Open a checkpoint written by `torch.save`, in either of its two formats.

    Raises CheckpointError: missing, unreadable, truncated or another kind of file.
    """
    data = _map(path)
    try:
        return _opened(path, data)
    except OSError as err:  # of a place in the file as well, which a damaged index can name
        raise CheckpointError(
            f"{path} is damaged, or {cause(err, 'copy or download it again')}"
        ) from err


def _opened(path: Path, data: mmap.mmap) -> Archive:
    try:  # an index may also say that it is split over several disks
        if zipfile.is_zipfile(path):
            return _open_zip(path, data)
    except _ZIP_FAULTS as err:
        raise CheckpointError(
            f"{path} is damaged ({first_line(err)}); copy or download it again"
        ) from err
    if data[:4] == b"PK\x03\x04":
        raise CheckpointError(
            f"{path} is cut off: the index at the end of the file is missing; "
            "copy or download it again"
        )
    return _open_stream(path, data)


def _map(path: Path) -> mmap.mmap:
    try:
        with open_file(path) as file:
            file.seek(-min(_INDEX, os.fstat(file.fileno()).st_size), os.SEEK_END)
            file.read()  # where a fault of the disk is told; zipfile takes it for another format
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except ValueError as err:
        raise CheckpointError(f"{path} is empty; copy or download it again") from err
    except OSError as err:
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {cause(err, 'copy it again')}"
        ) from err


def _open_zip(path: Path, data: mmap.mmap) -> Archive:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        _check_packing(path, len(data), entries)
        top = next((n for n in entries if n.count("/") == 1 and n.endswith("/data.pkl")), None)
        if top is None:
            raise CheckpointError(
                f"{path} is a zip file but not a PyTorch checkpoint: it holds no data.pkl"
            )
        folder = top.removesuffix("data.pkl")
        for info in entries.values():
            if info.CRC == 0 and info.compress_type == zipfile.ZIP_STORED:
                del info.CRC  # torch can be told to make none; without it, none is checked
        _check_byte_order(path, archive, entries, f"{folder}byteorder")
        root = unpickle(archive.read(top), str(path))
        starts: dict[str, int] = {}
        copies: dict[str, bytearray] = {}
        sums: dict[str, tuple[int, int]] = {}
        for name, info in entries.items():
            key = name.removeprefix(f"{folder}data/")
            if key == name:
                continue
            if info.compress_type == zipfile.ZIP_STORED:
                starts[key] = _data_start(path, data, info)
                sums[key] = info.file_size, getattr(info, "CRC", 0)
            else:
                copies[key] = bytearray(archive.read(name))
        return Archive(path, root, data, starts, copies, sums)


def _check_packing(path: Path, size: int, entries: dict[str, zipfile.ZipInfo]) -> None:
    """Refuse what PyTorch does not write, before anything is unpacked into memory."""
    packed = [info for info in entries.values() if info.compress_type != zipfile.ZIP_STORED]
    if any(info.compress_type != zipfile.ZIP_DEFLATED for info in packed):
        raise CheckpointError(f"{path} is packed in an unusual way; save it again with torch.save")
    if sum(info.file_size for info in packed) > _UNPACKED * size:
        raise CheckpointError(
            f"{path} unpacks to more than {_UNPACKED} times its size, which tensors do not; "
            "save it again with torch.save"
        )


def _check_byte_order(
    path: Path, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str
) -> None:
    if name in entries and archive.read(name).strip() != b"little":
        raise CheckpointError(f"{path} was written on a big-endian machine; save it again on x86")


def _data_start(path: Path, data: mmap.mmap, info: zipfile.ZipInfo) -> int:
    """Skip the local header, whose name and padding lengths differ from the index's."""
    header = data[info.header_offset : info.header_offset + _ZIP_LOCAL_HEADER]
    if len(header) == _ZIP_LOCAL_HEADER and info.header_offset >= 0:
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = info.header_offset + _ZIP_LOCAL_HEADER + int(name_length) + int(extra_length)
        if start + info.file_size <= len(data):
            return start
    raise CheckpointError(f"{path} is cut off at {info.filename}; copy or download it again")


def _open_stream(path: Path, data: mmap.mmap) -> Archive:
    source, storages = str(path), dict[str, StorageRef]()
    with path.open("rb") as file:
        if unpickle(file, source) != _STREAM_MAGIC:
            raise CheckpointError(f"{path} is not a PyTorch checkpoint")
        if unpickle(file, source) != _STREAM_PROTOCOL:
            raise CheckpointError(f"{path} has an unknown version of PyTorch's older format")
        system = unpickle(file, source)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise CheckpointError(
                f"{path} was written on a big-endian machine; save it again on x86"
            )
        root = unpickle(file, source, storages)
        keys = unpickle(file, source)
        position = file.tell()
    if not isinstance(keys, list) or not all(key in storages for key in keys):
        raise CheckpointError(f"{path} is damaged: its list of storages is unreadable")
    starts: dict[str, int] = {}
    for key in keys:
        starts[key] = position + 8  # after the number of elements, which the pickle told before
        dtype: torch.dtype = getattr(torch, storages[key].dtype)
        position = starts[key] + storages[key].numel * dtype.itemsize
    return Archive(path, root, data, starts)
