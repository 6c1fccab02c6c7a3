"""The models that a GPU is measured with: `sky` at paper size, `sky-tiny`, and a smaller one.

Weights are random with magnitudes that keep activations near 1: speed and rounding do not depend
on training, and nothing has to be downloaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from lvdm_engines.bundle import load_bundle
from lvdm_engines.manifest import InterpolateFacts, PredictFacts, ScheduleFacts
from lvdm_export.build import BuildOptions, Source, build
from lvdm_export.config.model_json import ModelRecord, save_model
from lvdm_export.graph.graphs import DecoderGraph, DenoiserGraph
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.layers import bake
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from lvdm_engines.bundle import Bundle
    from lvdm_engines.manifest import Manifest, Precision

_SCHEDULE = ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155)


@dataclass(frozen=True)
class Size:
    """Networks of one size and what their frames and latents measure."""

    unet: UNet3dConfig
    autoencoder: Autoencoder3dConfig
    frame: int
    latent: int
    scale: float
    shift: float
    noise_levels: int
    decode_window: int


SIZES = {
    "sky": Size(
        unet=UNet3dConfig(
            in_channels=5,
            out_channels=4,
            model_channels=256,
            num_res_blocks=3,
            channel_mult=(1, 2, 3, 4),
            attention_resolutions=(8, 4, 2),
            num_heads=4,
            temporal_length=5,
            use_scale_shift_norm=True,
            num_classes=251,
        ),
        autoencoder=Autoencoder3dConfig(),
        frame=256,
        latent=32,
        scale=0.33422927,
        shift=1.4606637,
        noise_levels=250,
        decode_window=4,
    ),
    "sky-tiny": Size(
        unet=UNet3dConfig(
            in_channels=5,
            out_channels=4,
            model_channels=48,
            num_res_blocks=2,
            channel_mult=(1, 2, 3),
            attention_resolutions=(1, 2, 4),
            num_heads=4,
            temporal_length=5,
            num_classes=251,
            norm_groups=16,
            prediction="v",
        ),
        autoencoder=Autoencoder3dConfig(n_hiddens=8, norm_groups=2),
        frame=64,
        latent=8,
        scale=0.334,
        shift=1.461,
        noise_levels=250,
        decode_window=4,
    ),
    "tiny": Size(
        unet=UNet3dConfig(
            in_channels=3,
            out_channels=2,
            model_channels=8,
            num_res_blocks=1,
            channel_mult=(1, 2),
            attention_resolutions=(2,),
            num_heads=2,
            temporal_length=5,
            num_classes=11,
            norm_groups=4,
        ),
        autoencoder=Autoencoder3dConfig(
            n_hiddens=4, downsample=(2, 4, 4), z_channels=2, embed_dim=2, norm_groups=2
        ),
        frame=16,
        latent=4,
        scale=0.5,
        shift=1.25,
        noise_levels=10,
        decode_window=2,
    ),
}


def random_network(network: nn.Module, seed: int) -> nn.Module:
    """Fill every parameter, zero-initialised ones too, so that variances stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            inputs = parameter[0].numel() if parameter.dim() > 1 else 64
            parameter.normal_(0, 0.8 / inputs**0.5, generator=generator)
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.add_(1)
    return network.eval()


def networks(size: Size) -> tuple[UNet3d, Autoencoder3d]:
    """Return the denoiser and the autoencoder, always with the same weights."""
    unet, autoencoder = UNet3d(size.unet), Autoencoder3d(size.autoencoder)
    random_network(unet, 1)
    random_network(autoencoder, 2)
    return unet, autoencoder


def torch_graphs(size: Size, manifest: Manifest) -> dict[str, nn.Module]:
    """Return the denoiser and decoder as torch modules with the inputs of their graphs."""
    unet, autoencoder = networks(size)
    bake(unet)
    bake(autoencoder)
    return {
        "predict": DenoiserGraph(unet),
        "decoder": DecoderGraph(autoencoder, manifest.model.latent),
    }


def bundle_of(
    name: str, precision: Precision, folder: Path, report: Callable[[str], None]
) -> Bundle:
    """Export a model into `folder`, once; a bundle of the same networks there is used again."""
    size = SIZES[name]
    out = folder / f"{name}-{precision}-{_key(size, precision)}"
    if (out / "manifest.json").is_file():
        return load_bundle(out)
    sources = _checkpoints(size, folder / f"{name}-checkpoints")
    joint = Source(*sources["unet"])
    options = BuildOptions(
        denoisers={"predict": joint, "interpolate": joint},
        autoencoder=sources["autoencoder"][1],
        out=out,
        precision=precision,
        name=f"{name}-{precision}",
    )
    return build(options, report)


def _key(size: Size, precision: Precision) -> str:
    """Return what changes with the networks and with the code that exports them."""
    made_of = (repr(size), precision, metadata.version("lvdm-rt"))
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]


def _checkpoints(size: Size, folder: Path) -> dict[str, tuple[Path, Path]]:
    unet, autoencoder = networks(size)
    side = (size.latent, size.latent)
    facts: dict[str, Any] = {
        "scale": size.scale,
        "shift": size.shift,
        "latent_size": side,
        "schedule": _SCHEDULE,
        "predict": PredictFacts(4, 1, 4),
        "interpolate": InterpolateFacts(5),
        "noise_levels": size.noise_levels,
    }
    return {
        "unet": save_model(
            folder / "unet",
            ModelRecord(kind="unet3d", config=dataclasses.asdict(size.unet), **facts),
            unet,
        ),
        "autoencoder": save_model(
            folder / "autoencoder",
            ModelRecord(
                kind="autoencoder3d",
                config=dataclasses.asdict(size.autoencoder),
                frame_size=(size.frame, size.frame),
                decode_window=size.decode_window,
            ),
            autoencoder,
        ),
    }
