"""The text-to-video model: a 2D autoencoder frame by frame, and a denoiser that reads a context."""

from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lvdm_engines.manifest import ContextFacts
from lvdm_engines.opening import open_session
from lvdm_export.build import BuildOptions, Source, build
from lvdm_export.checkpoint.weights import build as build_network
from lvdm_export.config.yaml_config import parse_config

UNET = {
    "in_channels": 2,
    "out_channels": 2,
    "model_channels": 8,
    "num_res_blocks": 1,
    "channel_mult": [1],
    "attention_resolutions": [1],
    "num_heads": 2,
    "context_dim": 12,
    "transformer_depth": 1,
    "legacy": False,
    "kernel_size_t": 1,
    "padding_t": 0,
    "use_temporal_transformer": True,
    "temporal_length": 3,
    "use_relative_position": True,
    "norm_groups": 4,
}
AUTOENCODER = {
    "double_z": True,
    "z_channels": 2,
    "resolution": 8,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 4,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "norm_groups": 4,
}
CONFIG = {
    "model": {
        "params": {
            "linear_start": 0.00085,
            "linear_end": 0.012,
            "image_size": [4, 4],
            "video_length": 3,
            "channels": 2,
            "conditioning_key": "crossattn",
            "scale_factor": 0.18215,
            "use_ema": False,
            "unet_config": {"target": "none", "params": UNET},
            "first_stage_config": {
                "target": "none",
                "params": {"embed_dim": 2, "ddconfig": AUTOENCODER},
            },
            "cond_stage_config": {"target": "none"},
        }
    }
}


def random_state(network, prefix):
    generator = torch.Generator().manual_seed(0)
    return {
        prefix + name: torch.randn(p.shape, generator=generator) * 0.3
        for name, p in network.state_dict().items()
    }


@pytest.mark.slow
def test_a_text_model_becomes_short_clips_with_a_context(tmp_path):
    config, checkpoint = tmp_path / "t2v.yaml", tmp_path / "t2v.ckpt"
    config.write_text(yaml.safe_dump(CONFIG))
    described = parse_config(CONFIG, config)
    unet = build_network(described.denoiser.network_config())
    autoencoder = build_network(described.autoencoder.network_config())
    state = random_state(unet, "model.diffusion_model.")
    state |= random_state(autoencoder, "first_stage_model.")
    state["cond_stage_model.transformer.w"] = torch.zeros(1)
    torch.save({"state_dict": state}, checkpoint)
    made = build(
        BuildOptions(denoisers={"short": Source(config, checkpoint)}, out=tmp_path / "b"),
        lambda _line: None,
    )
    model: Any = made.manifest.model
    assert model.context == ContextFacts(77, 12)
    assert (model.frames_per_latent, model.decode_window) == (1, 1)
    assert not made.manifest.provenance.ema  # the config says that there are no averages
    feeds = {
        "latents": np.zeros((1, 2, 3, 4, 4), np.float32),
        "timestep": np.array([1]),
        "context": np.zeros((1, 77, 12), np.float32),
    }
    with open_session(made, "short", "cpu") as session:
        assert session.run(feeds)["eps"].shape == (1, 2, 3, 4, 4)
