"""Checkpoints as the field spreads them: official names in safetensors, folders, shards."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toy_checkpoints import AUTOENCODER, UNET

from lvdm_engines.errors import CheckpointError
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import load_autoencoder, load_denoiser

SUFFIXES = ["safetensors", "bin"]


@pytest.fixture
def state(official):
    found = torch.load(official.checkpoint, weights_only=False)["state_dict"]
    kept = {}  # safetensors stores no tensor twice; of the two names either may be missing
    for key, tensor in found.items():
        kept.setdefault(tensor.data_ptr(), (key, tensor.contiguous()))
    return dict(kept.values())


def save(state, path):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


def shard(state, folder, suffix):
    """Write a state in two files and an index, as the field's libraries do."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    index, keys = {}, list(state)
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        name = f"{stem}-{number:05d}-of-00002.{suffix}"
        save({key: state[key] for key in part}, folder / name)
        index |= dict.fromkeys(part, name)
    path = folder / f"{stem}.{suffix}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return path


def same(network, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in network.state_dict().items())


def check(official, path):
    checkpoint = open_checkpoint(path)
    assert not checkpoint.ours
    assert same(load_denoiser(UNET, checkpoint, ema=True), official.ema)
    assert same(load_denoiser(UNET, checkpoint, ema=False), official.unet)
    assert same(load_autoencoder(AUTOENCODER, checkpoint), official.autoencoder)


def test_official_names_in_safetensors_follow_the_rules_of_the_authors_files(
    official, state, tmp_path
):
    save(state, tmp_path / "converted.safetensors")
    check(official, tmp_path / "converted.safetensors")


def test_an_official_autoencoder_in_safetensors_may_hold_its_losses(official, tmp_path):
    state = {k: v.clone() for k, v in official.autoencoder.state_dict().items()}
    save(state | {"loss.logvar": torch.zeros(())}, tmp_path / "ae.safetensors")
    found = load_autoencoder(AUTOENCODER, open_checkpoint(tmp_path / "ae.safetensors"))
    assert same(found, official.autoencoder)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("named", ["folder", "index"])
def test_shards_are_one_checkpoint(official, state, tmp_path, suffix, named):
    index = shard(state, tmp_path, suffix)
    check(official, index if named == "index" else tmp_path)
    assert len(open_checkpoint(tmp_path).files) == 3


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_stands_for_the_one_file_in_it(official, state, tmp_path, name):
    save(state, tmp_path / name)
    check(official, tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_shard_is_named(state, tmp_path, suffix):
    index = shard(state, tmp_path, suffix)
    next(tmp_path.glob(f"*2-of*.{suffix}")).unlink()
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*00002-of-00002"):
        open_checkpoint(index)


def test_a_shard_that_lacks_what_the_index_promises_is_refused(state, tmp_path):
    index = shard(state, tmp_path, "safetensors")
    told = json.loads(index.read_text())
    told["weight_map"]["extra"] = next(iter(told["weight_map"].values()))
    index.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"lacks 'extra', which model\S+ says is in it"):
        open_checkpoint(index)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "..", "", "\0"])
def test_an_index_reads_no_file_elsewhere(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="expected a file beside it"):
        open_checkpoint(index)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {"a": 1}}', "[" * 5000])
def test_an_index_that_is_none_is_refused_in_one_line(tmp_path, content):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(CheckpointError, match="not an index of sharded weights"):
        open_checkpoint(index)


def test_a_pointer_of_git_lfs_says_how_to_fetch_the_weights(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_checkpoint(path)


def test_a_folder_that_may_not_be_looked_into_is_refused(tmp_path, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda p, **k: (refuse if p != tmp_path else stat)(p, **k))
    with pytest.raises(CheckpointError, match=r"is a directory without model\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["m.ckpt", "blob", "M.SAFETENSORS"])
def test_the_form_of_a_file_is_known_by_what_is_in_it(official, state, tmp_path, name):
    save_file(state, tmp_path / name)
    load_denoiser(UNET, open_checkpoint(tmp_path / name), ema=True)


def test_averaged_weights_alone_are_a_denoiser(official, state, tmp_path):
    only = {key: v for key, v in state.items() if not key.startswith("model.diffusion_model.")}
    save_file(only, tmp_path / "m.safetensors")
    checkpoint = open_checkpoint(tmp_path / "m.safetensors")
    loaded = load_denoiser(UNET, checkpoint, ema=True).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in official.ema.state_dict().items())
    with pytest.raises(CheckpointError, match="holds no denoiser"):
        load_denoiser(UNET, checkpoint, ema=False)
