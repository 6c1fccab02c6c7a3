"""The names of weight files, from ONNX files written in every way that a parser takes."""

import pytest

from lvdm_engines.bundle import builtin_bundles
from lvdm_engines.errors import BundleError
from lvdm_engines.onnx_data import weight_files


def entry(key, value, swapped):
    """One entry of a tensor's external data, as protobuf writes it or with its fields swapped."""
    fields = [
        bytes([tag]) + _length(len(text)) + text for tag, text in ((0x0A, key), (0x12, value))
    ]
    return b"".join(reversed(fields) if swapped else fields)


def _length(size):
    return bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])


def field(tag, content):
    return bytes([tag]) + _length(len(content)) + content


@pytest.mark.parametrize("holder", [b"*", b"z"], ids=["initializer", "sparse"])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", [b"w.bin", b"a" * 140])
def test_weight_files_are_found_however_they_are_written(tmp_path, name, swapped, holder):
    tensor = field(0x6A, entry(b"location", name, swapped)) + field(0x6A, entry(b"offset", b"0", 0))
    if holder == b"z":
        tensor = field(0x0A, tensor)  # the values of a sparse one
    path = tmp_path / "g.onnx"
    path.write_bytes(b"\x08\x0a" + field(0x3A, field(holder[0], tensor)))
    assert weight_files(path) == {name}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="is no ONNX file"):
        weight_files(path)


def test_files_that_hold_their_weights_name_none():
    for folder in builtin_bundles().values():
        files = list(folder.glob("*.onnx"))
        assert len(files) >= 3
        assert not any(map(weight_files, files))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        # field 7 and 2^32: its number is more than 32 bits, of which an engine takes the lower ones
        (bytes([0xBA, 0x80, 0x80, 0x80, 0x10, 0]), r" \(a field of no number\)"),
        (b"", ""),
    ],
    ids=["a field that only some parsers would see", "nothing"],
)
def test_what_is_no_onnx_file_is_refused(tmp_path, data, told):
    path = tmp_path / "g.onnx"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=f"is no ONNX file{told}"):
        weight_files(path)
