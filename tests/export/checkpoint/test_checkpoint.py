"""Checkpoints are untrusted: read tensors, build nothing else, run nothing."""

import contextlib
import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from lvdm_engines.errors import CheckpointError
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.unpickle import Inert, unpickle


class TouchesAFile:
    """Creates a file when it is unpickled by something that calls what a pickle names."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5).half()}


def repacked(path, method=zipfile.ZIP_STORED, change=lambda data: data, **extra):
    """Write a checkpoint's zip file again: its entries changed, and more of them."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: change(archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in {**entries, **extra}.items():
            archive.writestr(name, data)


@pytest.fixture(params=["zip", "stream"])
def saved(request, tmp_path):
    def save(content):
        path = tmp_path / "model.ckpt"
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    return save


def test_tensors_of_both_formats_are_read_as_they_were_saved(saved):
    checkpoint = open_checkpoint(saved({"state_dict": STATE, "epoch": 3}))
    assert checkpoint.shapes == {"a.weight": (3, 4), "b": (5,)}
    for name, tensor in STATE.items():
        assert torch.equal(checkpoint.read(name), tensor)


def test_views_keep_their_offset_and_stride(saved):
    whole = torch.arange(24.0).reshape(4, 6)
    views = {"t": whole.t(), "part": whole[1:3, 2:4]}
    checkpoint = open_checkpoint(saved({"state_dict": views}))
    for name, view in views.items():
        assert torch.equal(checkpoint.read(name), view)


def test_a_plain_state_dict_without_a_trainer_around_it_is_read(saved):
    assert set(open_checkpoint(saved(STATE)).shapes) == set(STATE)


def test_nothing_that_a_checkpoint_names_is_executed(saved, tmp_path):
    target = tmp_path / "created"
    path = saved({"state_dict": STATE, "evil": TouchesAFile(target)})
    assert set(open_checkpoint(path).shapes) == set(STATE)
    assert not target.exists()


def test_code_hidden_in_callback_state_is_not_executed(saved, tmp_path):
    target = tmp_path / "created"
    hidden = {"ModelCheckpoint": {"best": [TouchesAFile(target)], "score": STATE["b"]}}
    checkpoint = open_checkpoint(saved({"callbacks": hidden, "state_dict": STATE}))
    assert torch.equal(checkpoint.read("a.weight"), STATE["a.weight"])
    assert not target.exists()


def test_code_in_place_of_the_state_dict_is_refused_not_executed(saved, tmp_path):
    target = tmp_path / "created"
    with pytest.raises(CheckpointError, match="no state_dict of tensors"):
        open_checkpoint(saved({"state_dict": TouchesAFile(target)}))
    assert not target.exists()


def test_modules_that_a_pickle_names_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "imported_by_pickle.py").write_text("class Thing: ...")
    monkeypatch.syspath_prepend(tmp_path)
    found = unpickle(b"cimported_by_pickle\nThing\n)R.", "x.ckpt")
    assert isinstance(found, Inert)
    assert "imported_by_pickle" not in sys.modules


@pytest.mark.parametrize(
    "state",
    [b"}(X\x08\x00\x00\x00__call__K\x01u", b"(N}(X\x06\x00\x00\x00_buildK\x01ut"],
)
@pytest.mark.parametrize("name", [b"ctorch._utils\n_rebuild_tensor_v2\n", b"cos\nsystem\n"])
def test_a_pickle_cannot_change_what_names_stand_for(name, state):
    with contextlib.suppress(CheckpointError):
        unpickle(name + state + b"b.", "x.ckpt")
    intact = unpickle(b"ccollections\nOrderedDict\n)R.", "x.ckpt")
    assert intact == {}
    assert isinstance(unpickle(b"cos\nsystem\n(X\x01\x00\x00\x00xtR.", "x.ckpt"), Inert)


STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
)


@pytest.mark.parametrize("thing", [b"ctorch\nFloatStorage\n", STORAGE])
def test_a_pickle_cannot_rewrite_the_type_of_a_storage(thing):
    rewrite = b"}X\x05\x00\x00\x00dtypeX\x04\x00\x00\x00loadsb."
    with pytest.raises(CheckpointError, match="refusing to change"):
        unpickle(thing + rewrite, "x.ckpt")


def test_attributes_of_a_state_dict_are_dropped():
    found = unpickle(
        b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemscos\nsystem\nsb.", "x.ckpt"
    )
    assert list(found.items()) == []


def test_a_list_of_pairs_becomes_one_dictionary_and_not_many_copies() -> None:
    pairs = b"]q\x00(]q\x01(X\x01\x00\x00\x00aK\x01ee"
    ordered = b"ccollections\nOrderedDict\nh\x00\x85R"
    assert unpickle(b"(" + pairs + 2 * ordered + b"t.", "x.ckpt") == ([], {"a": 1}, {})


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(X\x01\x00\x00\x00xt\x81.",  # NEWOBJ
        b"cos\nsystem\n(X\x01\x00\x00\x00xt}\x92.",  # NEWOBJ_EX
        b"(cos\nsystem\nX\x01\x00\x00\x00xo.",  # OBJ
        b"(X\x01\x00\x00\x00xios\nsystem\n.",  # INST
        b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93(X\x01\x00\x00\x00xtR.",  # STACK_GLOBAL
        b"cos\nsystem\n(S'x'\ntR.",  # REDUCE in protocol 0
        b"cos\npath.join\n(S'x'\ntR.",
    ],
)
def test_every_way_of_calling_a_name_builds_an_inert_object(content):
    assert isinstance(unpickle(content, "x.ckpt"), Inert)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x82\x01.", "unregistered extension"),  # EXT1
        (b"Pstorage\n.", "not a tensor storage"),  # PERSID
        (b"Nr\xff\xff\xff\x1f.", "object number"),  # would take 8 GiB for its memo
        (b"}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.", "a tuple of more than 10000 parts"),
        (b"}" + b")" + b"2\x86" * 60 + b"K\x01s.", "a tuple of more than 10000 parts"),
        (b"\x8b" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20) + b".", "255 bytes"),
        (b"\x8e" + (1 << 40).to_bytes(8, "little") + b"x.", "only 2 remain"),
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n("
            + STORAGE
            + b"K\x00K\x01\x85\x8a\x0d"
            + (10**30).to_bytes(13, "little")
            + b"\x85tR.",
            "impossible tensor",
        ),
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00K\x01\x85\x88\x85tR.",
            "not made of whole numbers",  # a stride of True
        ),
    ],
)
def test_pickles_that_ask_for_too_much_are_refused(content, reason):
    with pytest.raises(CheckpointError, match=reason):
        unpickle(content, "x.ckpt")


def test_a_packed_checkpoint_is_read_and_a_zip_bomb_is_not(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save(STATE, path)
    repacked(path, zipfile.ZIP_DEFLATED, **{"archive/data/9": b""})
    assert torch.equal(open_checkpoint(path).read("b"), STATE["b"])
    repacked(path, zipfile.ZIP_DEFLATED, **{"archive/data/9": bytes(1 << 20)})
    with pytest.raises(CheckpointError, match="16 times"):
        open_checkpoint(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_byte_never_ends_in_anything_but_a_short_refusal(tmp_path, method):
    path = tmp_path / "x.ckpt"
    torch.save(STATE, path)
    repacked(path, method)
    content = path.read_bytes()
    for place in range(0, len(content), 11):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xA5]) + content[place + 1 :])
        try:
            checkpoint = open_checkpoint(path)
            for name in checkpoint.shapes:
                checkpoint.read(name)
        except CheckpointError as err:
            assert len(str(err)) < 400  # noqa: PT017 - most changes go unnoticed


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 0.999])
def test_a_truncated_checkpoint_is_refused_in_one_line(saved, share):
    path = saved({"state_dict": {"w": torch.randn(2000)}})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError):
        open_checkpoint(path).read("w")


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    for content, reason in ((b"", "empty"), (b"hello\nworld", "not a PyTorch checkpoint")):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=reason):
            open_checkpoint(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        open_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors here")
    with pytest.raises(CheckpointError, match=r"holds no data\.pkl"):
        open_checkpoint(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        open_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="is a directory"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        open_checkpoint(tmp_path / f"{'long' * 80}.ckpt")


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        open_checkpoint(path)


def test_a_tensor_that_reaches_past_its_storage_is_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"w": torch.zeros(4)}, path)
    # shape (4,) becomes (200,): the pickle writes small numbers as K and one byte
    repacked(path, change=lambda data: data.replace(b"K\x00K\x04\x85", b"K\x00K\xc8\x85"))
    with pytest.raises(CheckpointError, match="reaches past its storage"):
        open_checkpoint(path)


def test_tensors_are_read_when_they_are_asked_for_and_never_copied(tmp_path):
    path = tmp_path / "big.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(1 << 24), "v": torch.ones(3)}}, path)
    before = _memory("VmRSS"), _memory("RssAnon")
    checkpoint = open_checkpoint(path)
    assert _memory("VmRSS") - before[0] < 16 << 10  # kB, of 64 MiB
    tensor = checkpoint.read("w")
    assert tensor.numel() == 1 << 24
    assert _memory("RssAnon") - before[1] < 16 << 10


def _memory(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind))


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="is a pipe or a device"):
        open_checkpoint(tmp_path / name)
