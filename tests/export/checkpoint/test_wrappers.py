"""Keys that trainers wrapped are read under their official names, averaged copies too."""

import pytest
import torch
from toy_checkpoints import AUTOENCODER, UNET

from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import load_autoencoder, load_denoiser
from lvdm_export.checkpoint.wrappers import unwrap


def compiled(key):
    """Name a key as it is where the trainer compiled the denoiser alone."""
    key = key.replace("diffusion_model.", "diffusion_model._orig_mod.")
    return key.replace("model_ema.diffusion_model", "model_ema.diffusion_model_orig_mod")


WRAPPINGS = {
    "DDP": lambda key: f"module.{key}",
    "DeepSpeed in Lightning": lambda key: f"_forward_module.module.{key}",
    "another module": lambda key: f"model.model.{key}",
    "torch.compile around all": lambda key: f"_orig_mod.{key}",
    "torch.compile inside": compiled,
    "both": lambda key: f"module.{compiled(key)}",
    "torch.compile inside another module": lambda key: f"module.model.{compiled(key)}",
}


def test_a_name_that_comes_twice_does_not_keep_wrappers_on_the_others():
    keys = ["betas", "module.betas", "module.model.diffusion_model.out.0.bias"]
    assert unwrap(keys) == {
        "betas": "betas",
        "module.betas": "module.betas",
        "model.diffusion_model.out.0.bias": keys[2],
    }


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_wrapped_keys_give_the_same_networks(official, tmp_path, wrap):
    state = torch.load(official.checkpoint, weights_only=False)["state_dict"]
    path = tmp_path / "wrapped.ckpt"
    torch.save({"state_dict": {wrap(key): tensor for key, tensor in state.items()}}, path)
    checkpoint = open_checkpoint(path)
    for ema, network in ((True, official.ema), (False, official.unet)):
        loaded = load_denoiser(UNET, checkpoint, ema=ema).state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in network.state_dict().items())
    load_autoencoder(AUTOENCODER, checkpoint)
    assert checkpoint.renamed is not None
    stored, read = checkpoint.renamed
    assert stored == wrap(read)


def test_keys_without_wrappers_are_left_alone(official):
    assert open_checkpoint(official.checkpoint).renamed is None


def test_a_deepspeed_container_is_opened(official, tmp_path):
    state = torch.load(official.checkpoint, weights_only=False)["state_dict"]
    torch.save({"module": state, "global_steps": 7}, tmp_path / "model_states.pt")
    load_denoiser(UNET, open_checkpoint(tmp_path / "model_states.pt"), ema=True)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["module.encoder.a"], ["encoder.a"]),
        (["model.encoder.a", "model.decoder.b"], ["encoder.a", "decoder.b"]),
        (["model.diffusion_model.a"], ["model.diffusion_model.a"]),
        (["model.model.encoder.a", "model.other"], ["model.encoder.a", "other"]),
        (["module.a", "a"], ["module.a", "a"]),  # two tensors that would have one name
        (["submodule.a"], ["submodule.a"]),
        ([], []),
    ],
)
def test_wrappers_come_off_where_names_stay_apart_and_all_keys_have_them(keys, names):
    assert unwrap(keys) == dict(zip(names, keys, strict=True))
