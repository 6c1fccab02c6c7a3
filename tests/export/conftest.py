"""Tiny models on disk: an official-looking YAML and Lightning checkpoint, and files of our own."""

import dataclasses
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lvdm_engines.manifest import InterpolateFacts, PredictFacts, ScheduleFacts, ShortFacts
from lvdm_export.build import BuildOptions, Source, build
from lvdm_export.config.model_json import ModelRecord, save_model
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig

AUTOENCODER = Autoencoder3dConfig(
    n_hiddens=4, downsample=(2, 2, 2), z_channels=2, embed_dim=2, norm_groups=2
)
UNET = UNet3dConfig(
    in_channels=3,
    out_channels=2,
    model_channels=8,
    num_res_blocks=1,
    channel_mult=(1,),
    attention_resolutions=(2,),
    num_heads=2,
    temporal_length=5,
    num_classes=11,
    norm_groups=4,
)


class Callback:
    """A class of the trainer that only the pickle names."""

    def __init__(self):
        self.best = torch.ones(2)


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    torch.set_num_threads(2)


def filled(network, seed=0):
    """Give every parameter (zero-initialised layers too) values that keep magnitudes near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 64
            parameter.normal_(0, 0.8 / fan_in**0.5, generator=generator)
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.add_(1)
    return network.eval()


def official_yaml():
    """Describe UNET and AUTOENCODER as the authors' files do."""
    encoder = {
        "n_hiddens": 4,
        "downsample": [2, 2, 2],
        "image_channel": 3,
        "norm_type": "group",
        "padding_type": "replicate",
        "double_z": True,
        "z_channels": 2,
        "norm_groups": 2,
    }
    decoder = {
        "n_hiddens": 4,
        "upsample": [2, 2, 2],
        "z_channels": 2,
        "image_channel": 3,
        "norm_type": "group",
        "norm_groups": 2,
    }
    unet = {
        "num_classes": 11,
        "image_size": 4,
        "in_channels": 3,
        "out_channels": 2,
        "model_channels": 8,
        "attention_resolutions": [2],
        "num_res_blocks": 1,
        "channel_mult": [1],
        "num_heads": 2,
        "use_temporal_transformer": False,
        "use_checkpoint": True,
        "legacy": False,
        "kernel_size_t": 1,
        "padding_t": 0,
        "temporal_length": 5,
        "use_relative_position": True,
        "use_scale_shift_norm": True,
        "norm_groups": 4,
    }
    first_stage = {
        "monitor": "val/rec_loss",
        "embed_dim": 2,
        "lossconfig": "__is_first_stage__",
        "ddconfig": {
            "double_z": True,
            "z_channels": 2,
            "encoder": {"target": "not.imported.Encoder", "params": encoder},
            "decoder": {"target": "not.imported.Decoder", "params": decoder},
        },
    }
    return {
        "model": {
            "target": "not.imported.LatentDiffusion",
            "base_learning_rate": 8.0e-5,
            "params": {
                "linear_start": 0.0015,
                "linear_end": 0.0155,
                "timesteps": 1000,
                "loss_type": "l1",
                "image_size": 4,
                "channels": 2,
                "noisy_cond": True,
                "max_noise_level": 10,
                "scale_factor": 0.5,
                "shift_factor": 1.25,
                "n_prevs": [1],
                "latent_frame_strde": 4,
                "cond_stage_config": None,
                "unet_config": {"target": "not.imported.UNet", "params": unet},
                "first_stage_config": {"target": "not.imported.AE", "params": first_stage},
            },
        },
        "data": {"target": "not.imported.Data", "params": {"batch_size": 2}},
    }


def official_state(unet, ema, autoencoder):
    """Name tensors as the authors' trainer does."""
    state = OrderedDict({"betas": torch.linspace(0.0015**0.5, 0.0155**0.5, 1000) ** 2})
    for name, tensor in unet.state_dict().items():
        state[f"model.diffusion_model.{name}"] = tensor
    for name, tensor in ema.named_parameters():
        key = f"diffusion_model.{name}".replace(".", "")
        state[f"model_ema.{key}"] = tensor.detach()
    state["model_ema.decay"] = torch.tensor(0.9999)
    state["model_ema.num_updates"] = torch.tensor(7, dtype=torch.int32)
    for name, tensor in autoencoder.state_dict().items():
        state[f"first_stage_model.{name}"] = tensor
    return state


@dataclass(frozen=True)
class Model:
    """Networks and the files that hold them."""

    config: Path
    checkpoint: Path
    unet: nn.Module
    ema: nn.Module
    autoencoder: nn.Module


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """Write a YAML file and a Lightning checkpoint with callback state in it."""
    folder = tmp_path_factory.mktemp("official")
    unet, ema = filled(UNet3d(UNET), 1), filled(UNet3d(UNET), 2)
    autoencoder = filled(Autoencoder3d(AUTOENCODER), 3)
    config, checkpoint = folder / "model.yaml", folder / "model.ckpt"
    config.write_text(yaml.safe_dump(official_yaml()))
    content = {
        "epoch": 3,
        "state_dict": official_state(unet, ema, autoencoder),
        "callbacks": {Callback: Callback()},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    }
    torch.save(content, checkpoint)
    return Model(config, checkpoint, unet, ema, autoencoder)


@pytest.fixture(scope="session")
def ours(tmp_path_factory):
    """Write a denoiser that was trained jointly and an autoencoder in our own format."""
    folder = tmp_path_factory.mktemp("ours")
    unet, autoencoder = filled(UNet3d(UNET), 1), filled(Autoencoder3d(AUTOENCODER), 3)
    config, checkpoint = save_model(
        folder / "unet",
        ModelRecord(
            kind="unet3d",
            config=dataclasses.asdict(UNET),
            scale=0.5,
            shift=1.25,
            latent_size=(4, 4),
            schedule=ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155),
            predict=PredictFacts(4, 1, 4),
            interpolate=InterpolateFacts(5),
            short=ShortFacts(4),
            noise_levels=10,
            provenance={"steps": 50},
        ),
        unet,
    )
    save_model(
        folder / "autoencoder",
        ModelRecord(
            kind="autoencoder3d",
            config=dataclasses.asdict(AUTOENCODER),
            frame_size=(8, 8),
            decode_window=2,
        ),
        autoencoder,
    )
    return Model(config, checkpoint, unet, unet, autoencoder)


@pytest.fixture(scope="session")
def bundle(official, tmp_path_factory):
    """Export the official-looking model once, as predictor and as infill network."""
    source = Source(official.config, official.checkpoint)
    return build(
        BuildOptions(
            denoisers={"predict": source, "interpolate": source},
            out=tmp_path_factory.mktemp("bundles") / "tiny",
            decode_window=2,
            sampling={"eta": 0.9},
        ),
        lambda _line: None,
    )
