"""Weights are what was saved: whole, of the right sign, whatever stands beside them."""

import errno
import io
import zipfile

import pytest
import torch

from lvdm_engines.errors import CheckpointError
from lvdm_export.checkpoint.keys import open_checkpoint

WEIGHT = torch.arange(1.0, 4097.0).reshape(64, 64)


class Tagged(torch.Tensor):
    """A class of the trainer's own."""


def attributed():
    tensor = WEIGHT.clone()
    tensor.note = "x"
    return tensor


MEANT = {
    "plain": lambda: WEIGHT,
    "with an attribute": attributed,
    "of another class": lambda: WEIGHT.clone().as_subclass(Tagged),
    "a parameter": lambda: torch.nn.Parameter(WEIGHT.clone()),
    "negated later": lambda: torch._neg_view(-WEIGHT),
    "the imaginary half of a conjugate": lambda: torch.complex(WEIGHT, -WEIGHT).conj().imag,
    "transposed": lambda: WEIGHT.t().contiguous().t(),
}
BESIDE = {
    "nothing": lambda: None,
    "a complex tensor": lambda: torch.ones(2, dtype=torch.complex64),
    "a conjugate": lambda: torch.ones(2, dtype=torch.complex128).conj(),
    "float8": lambda: torch.ones(2).to(torch.float8_e4m3fn),
    "unsigned numbers": lambda: torch.ones(2).to(torch.uint16),
    "a quantized tensor": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "a sparse tensor": lambda: torch.eye(2).to_sparse(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("older", [False, True], ids=["zip", "one stream"])
@pytest.mark.parametrize("weight", MEANT)
def test_a_weight_is_what_torch_reads(tmp_path, weight, older):
    path = tmp_path / "m.ckpt"
    content = {"state_dict": {"w": MEANT[weight]()}}
    torch.save(content, path, _use_new_zipfile_serialization=not older)
    assert torch.equal(open_checkpoint(path).read("w"), WEIGHT)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beside", BESIDE)
def test_a_checkpoint_is_not_judged_by_what_nobody_reads(tmp_path, beside):
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": {"w": WEIGHT}, "optimizer_states": [BESIDE[beside]()]}, path)
    assert torch.equal(open_checkpoint(path).read("w"), WEIGHT)


def test_weights_of_eight_bits_are_read_as_torch_reads_them(tmp_path):
    small = WEIGHT.div(64).to(torch.float8_e5m2)
    torch.save({"w": small}, tmp_path / "m.ckpt")
    assert torch.equal(open_checkpoint(tmp_path / "m.ckpt").read("w").float(), small.float())


@pytest.mark.parametrize("bit", [0, 3, 6])
@pytest.mark.parametrize("place", [0, 4001, 16383])
def test_one_flipped_bit_in_stored_weights_is_refused(tmp_path, place, bit):
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": {"w": WEIGHT, "v": torch.ones(3)}}, path)
    data = bytearray(path.read_bytes())
    data[bytes(data).find(WEIGHT.numpy().tobytes()) + place] ^= 1 << bit
    path.write_bytes(data)
    checkpoint = open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"data of w is not what was saved .*copy or downl"):
        checkpoint.read("w")
    assert torch.equal(checkpoint.read("v"), torch.ones(3))  # which is whole


def test_a_file_without_checksums_is_read(tmp_path):
    path = tmp_path / "m.ckpt"
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        torch.save({"w": WEIGHT}, path)
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    assert {info.CRC for info in zipfile.ZipFile(path).infolist()} == {0}
    assert torch.equal(open_checkpoint(path).read("w"), WEIGHT)


class FaultyFile(io.BytesIO):
    """A file of which nothing can be read, although its length is known."""

    def read(self, _=-1):
        raise OSError(errno.EIO, "Input/output error")

    def fileno(self):
        return 0


def test_a_fault_of_the_disk_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"x": WEIGHT}}, path)
    monkeypatch.setattr("lvdm_export.checkpoint.archive.open_file", lambda _: FaultyFile())
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.ckpt: the disk reports a f"):
        open_checkpoint(path)
