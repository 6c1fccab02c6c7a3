"""Tiny text-to-video models as they lie on disk: the authors' files, ours, and a folder of CLIP."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from toy_checkpoints import AUTOENCODER as AUTOENCODER_3D
from toy_checkpoints import UNET as MASKED
from toy_checkpoints import filled

from lvdm_engines.manifest import InterpolateFacts, PredictFacts, ScheduleFacts, ShortFacts
from lvdm_export.checkpoint.weights import build
from lvdm_export.config.model_json import ModelRecord, save_model
from lvdm_export.config.yaml_config import parse_config
from lvdm_export.nets.autoencoder3d import Autoencoder3d
from lvdm_export.nets.text import TextEncoder, TextEncoderConfig
from lvdm_export.nets.unet3d import UNet3d
from lvdm_export.text.tokenizer import clip_tokenizer

MERGES = ("s k", "sk y</w>", "r e", "re d</w>", "b l", "bl u", "blu e</w>")
VOCABULARY = 2 * 256 + len(MERGES) + 2
ENCODER = TextEncoderConfig(
    layers=2, width=64, heads=1, inner=32, vocabulary=VOCABULARY, tokens=77, activation="quick_gelu"
)
UNET = {
    "in_channels": 2,
    "out_channels": 2,
    "model_channels": 8,
    "num_res_blocks": 1,
    "channel_mult": [1],
    "attention_resolutions": [1],
    "num_heads": 2,
    "context_dim": 64,
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
CONFIG: dict[str, Any] = {
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


def encoder(seed: int = 5, **changes: Any) -> TextEncoder:
    """A text encoder with random weights."""
    return filled(TextEncoder(dataclasses.replace(ENCODER, **changes)), seed)


def official_text_state(text: TextEncoder | None) -> dict[str, torch.Tensor]:
    """Name the tensors of a text-to-video model as the authors' trainer does."""
    described = parse_config(copy.deepcopy(CONFIG), Path("t2v.yaml"))
    assert described.denoiser is not None
    assert described.autoencoder is not None
    state = {}
    for record, prefix in (
        (described.denoiser, "model.diffusion_model."),
        (described.autoencoder, "first_stage_model."),
    ):
        network = filled(build(record.network_config()).to_empty(device="cpu"), 1)
        state |= {prefix + name: tensor for name, tensor in network.state_dict().items()}
    if text is not None:
        prefix = "cond_stage_model.transformer.text_model."
        state |= {prefix + name: tensor for name, tensor in text.state_dict().items()}
        state[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    return state


def write_merges(path: Path) -> Path:
    """Write a list of merges as CLIP's is."""
    path.write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return path


def write_tokenizer_json(path: Path) -> Path:
    """Write the tokenizer of `MERGES`."""
    merges = write_merges(path.with_name("merges.txt"))
    path.write_bytes(clip_tokenizer(merges, 77))
    merges.unlink()
    return path


def write_clip_folder(folder: Path, text: TextEncoder, *, prefix: str = "") -> Path:
    """Write a text encoder as Hugging Face's library does, with its tokenizer."""
    folder.mkdir()
    config = text.config
    described = {
        "model_type": "clip_text_model",
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "intermediate_size": config.inner,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.tokens,
        "hidden_act": config.activation,
        "layer_norm_eps": 1e-05,
    }
    (folder / "config.json").write_text(json.dumps(described))
    save_file({prefix + n: t for n, t in text.state_dict().items()}, folder / "model.safetensors")
    write_tokenizer_json(folder / "tokenizer.json")
    return folder


def write_masked_model(folder: Path, text: TextEncoder | None) -> tuple[Path, Path]:
    """Write a denoiser with masks and text that was trained with its text encoder, and one of 3D.

    Returns the JSON and the weights of the denoiser; the autoencoder lies in `autoencoder`.
    """
    sizes = dataclasses.replace(
        MASKED, context_dim=64, use_temporal_transformer=True, transformer_depth=1
    )
    state = dict(filled(UNet3d(sizes), 1).state_dict())
    if text is not None:
        prefix = "cond_stage_model.transformer.text_model."
        state |= {prefix + name: tensor for name, tensor in text.state_dict().items()}
    record = ModelRecord(
        kind="unet3d",
        config=dataclasses.asdict(sizes),
        scale=0.5,
        shift=1.25,
        latent_size=(4, 4),
        schedule=ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155),
        predict=PredictFacts(4, 1, 4),
        interpolate=InterpolateFacts(5),
        short=ShortFacts(4),
        noise_levels=10,
        context_tokens=77,
        text_encoder=None if text is None else text.config,
    )
    written = save_model(folder, record, state)
    write_tokenizer_json(folder / "tokenizer.json")
    autoencoder = ModelRecord(
        kind="autoencoder3d",
        config=dataclasses.asdict(AUTOENCODER_3D),
        frame_size=(8, 8),
        decode_window=2,
    )
    save_model(folder / "autoencoder", autoencoder, filled(Autoencoder3d(AUTOENCODER_3D), 3))
    return written
