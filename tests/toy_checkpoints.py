"""Tiny networks to export, and how the authors' files describe and store them."""

import dataclasses
from collections import OrderedDict

import torch

from lvdm_export.nets.autoencoder3d import Autoencoder3dConfig
from lvdm_export.nets.unet3d import UNet3dConfig
from lvdm_tools.bench.models import random_network as filled

__all__ = [
    "AUTOENCODER",
    "UNET",
    "filled",
    "official_state",
    "official_yaml",
    "quiet",
    "write_ours",
]

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


def quiet(line):
    """Report nothing."""


def official_yaml():
    """Describe UNET and AUTOENCODER as the authors' files do."""
    both = {"n_hiddens": 4, "z_channels": 2, "image_channel": 3, "norm_type": "group"}
    both |= {"norm_groups": 2}
    encoder = {**both, "downsample": [2, 2, 2], "padding_type": "replicate", "double_z": True}
    decoder = {**both, "upsample": [2, 2, 2]}
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


def write_ours(folder):
    """Write a denoiser that was trained jointly and an autoencoder in our own format."""
    from lvdm_engines.manifest import InterpolateFacts, PredictFacts, ScheduleFacts, ShortFacts
    from lvdm_export.config.model_json import ModelRecord, save_model
    from lvdm_export.nets.autoencoder3d import Autoencoder3d
    from lvdm_export.nets.unet3d import UNet3d

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
    return config, checkpoint
