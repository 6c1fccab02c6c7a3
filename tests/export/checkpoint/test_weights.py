import pytest
import torch
from toy_checkpoints import AUTOENCODER, UNET

from lvdm_engines.errors import CheckpointError, ConfigError
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import build, load_autoencoder, load_denoiser
from lvdm_export.nets.unet3d import UNet3dConfig


def same(network, other):
    ours, theirs = network.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def changed(checkpoint, folder, change):
    """Write the checkpoint again after `change(state_dict)`."""
    content = torch.load(checkpoint, weights_only=False)
    change(content["state_dict"])
    path = folder / "changed.ckpt"
    torch.save({"state_dict": content["state_dict"]}, path)
    return open_checkpoint(path)


def test_averaged_weights_are_taken_by_default_and_plain_ones_on_request(official):
    checkpoint = open_checkpoint(official.checkpoint)
    assert same(load_denoiser(UNET, checkpoint, ema=True), official.ema)
    assert same(load_denoiser(UNET, checkpoint, ema=False), official.unet)


def test_the_autoencoder_inside_a_diffusion_checkpoint_is_found(official):
    network = load_autoencoder(AUTOENCODER, open_checkpoint(official.checkpoint))
    assert same(network, official.autoencoder)


def test_an_autoencoder_checkpoint_has_no_prefix_and_its_losses_are_ignored(official, tmp_path):
    state = {**official.autoencoder.state_dict(), "loss.logvar": torch.zeros(())}
    torch.save({"state_dict": state}, tmp_path / "ae.ckpt")
    network = load_autoencoder(AUTOENCODER, open_checkpoint(tmp_path / "ae.ckpt"))
    assert same(network, official.autoencoder)


def test_our_own_files_give_back_the_networks_they_were_written_from(ours):
    assert same(load_denoiser(UNET, open_checkpoint(ours.checkpoint), ema=True), ours.unet)
    path = ours.config.parent.parent / "autoencoder" / "model.safetensors"
    assert same(load_autoencoder(AUTOENCODER, open_checkpoint(path)), ours.autoencoder)


def test_a_checkpoint_without_averages_says_how_to_take_the_plain_weights(official, tmp_path):
    def drop(state):
        for key in [k for k in state if k.startswith("model_ema.")]:
            del state[key]

    with pytest.raises(CheckpointError, match=r"no EMA weights; use --no-ema"):
        load_denoiser(UNET, changed(official.checkpoint, tmp_path, drop), ema=True)


def test_missing_keys_are_counted_and_the_first_are_named(official, tmp_path):
    def drop(state):
        for key in [k for k in state if ".diffusion_model.out." in k]:
            del state[key]

    checkpoint = changed(official.checkpoint, tmp_path, drop)
    with pytest.raises(CheckpointError, match=r"4 missing keys \(out\.0\.weight, out\.0\.bias"):
        load_denoiser(UNET, checkpoint, ema=False)


@pytest.mark.parametrize("ema", [True, False])
def test_unexpected_keys_are_counted_and_named(official, tmp_path, ema):
    def add(state):
        state["model.diffusion_model.extra.weight"] = torch.zeros(2)
        state["model_ema.diffusion_modelextraweight"] = torch.zeros(2)

    checkpoint = changed(official.checkpoint, tmp_path, add)
    with pytest.raises(CheckpointError, match=r"1 unexpected keys \(model\S*extra\S*weight\)"):
        load_denoiser(UNET, checkpoint, ema=ema)


def test_a_config_that_disagrees_names_key_found_and_expected_shape(official):
    wider = UNet3dConfig(**{**UNET.__dict__, "num_classes": 12})
    with pytest.raises(
        CheckpointError,
        match=r"label_emb\.weight has shape \[11, 32\], but the config expects \[12, 32\]",
    ):
        load_denoiser(wider, open_checkpoint(official.checkpoint), ema=False)


def test_weights_that_are_not_finite_are_refused_by_name(official, tmp_path):
    def spoil(state):
        state["model.diffusion_model.out.2.bias"][0] = float("nan")

    checkpoint = changed(official.checkpoint, tmp_path, spoil)
    with pytest.raises(CheckpointError, match=r"out\.2\.bias holds NaN or infinity"):
        load_denoiser(UNET, checkpoint, ema=False)


def test_two_copies_of_one_tensor_that_differ_are_refused(official, tmp_path):
    def split(state):
        key = "first_stage_model.encoder.conv_first.weight"
        state[key] = state[key] + 1

    checkpoint = changed(official.checkpoint, tmp_path, split)
    with pytest.raises(CheckpointError, match=r"conv_first\S* and \S*conv_first\S* differ"):
        load_autoencoder(AUTOENCODER, checkpoint)


def test_half_precision_checkpoints_are_read_as_float32(official, tmp_path):
    def halve(state):
        for key, tensor in state.items():
            if tensor.is_floating_point():
                state[key] = tensor.half()

    network = load_denoiser(UNET, changed(official.checkpoint, tmp_path, halve), ema=False)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_a_checkpoint_of_another_kind_says_what_it_lacks(tmp_path):
    torch.save({"state_dict": {"w": torch.zeros(1)}}, tmp_path / "x.ckpt")
    checkpoint = open_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="holds no denoiser"):
        load_denoiser(UNET, checkpoint, ema=True)
    with pytest.raises(CheckpointError, match="holds no autoencoder"):
        load_autoencoder(AUTOENCODER, checkpoint)


def test_sizes_that_cannot_be_built_are_a_config_error():
    with pytest.raises(ConfigError, match="cannot be built"):
        build(UNet3dConfig(**{**UNET.__dict__, "norm_groups": 3}))
