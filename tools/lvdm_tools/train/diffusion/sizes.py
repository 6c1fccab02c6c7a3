"""Whether a denoiser's network fits the clips, latents and weights of its run."""

import dataclasses
from collections.abc import Sequence

import torch

from lvdm_engines.errors import ConfigError
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig
from lvdm_tools.train.config import DiffusionRun
from lvdm_tools.train.diffusion.text import probe_context
from lvdm_tools.train.networks import build, check_affordable, network_config


def unet_config(run: DiffusionRun, channels: int, device: torch.device) -> UNet3dConfig:
    """Fill the network's config and check it against the kinds of clips to be trained.

    Raises ConfigError: the network has no input that a kind of clip needs, or of another size, or
    it fits into no memory.
    """
    config = network_config(UNet3dConfig, run.network)
    if config.in_channels not in (channels, channels + 1):
        raise ConfigError(
            f"network.in_channels is {config.in_channels}, expected {channels} (latents) "
            f"or {channels + 1} (latents and mask)"
        )
    if config.out_channels != channels:
        raise ConfigError(f"network.out_channels is {config.out_channels}, expected {channels}")
    conditional = any(kind.kind != "unconditional" for kind in run.clips)
    if conditional and config.in_channels == channels:
        raise ConfigError(
            f"clips hold conditional kinds, which need a mask: network.in_channels {channels + 1}"
        )
    if conditional and run.noise_levels > (config.num_classes or 0):
        raise ConfigError(
            f"noise_levels is {run.noise_levels}, but network.num_classes is {config.num_classes}: "
            f"raise it to {run.noise_levels + 1} (the official layout keeps one spare row)"
        )
    farthest = max(kind.stride for kind in run.clips)
    if config.max_stride is not None and farthest > config.max_stride:
        raise ConfigError(
            f"clips hold a stride of {farthest}, but network.max_stride is {config.max_stride}: "
            f"raise it to {farthest}"
        )
    strides = {kind.stride for kind in run.clips if kind.kind == "predict"}
    if config.max_stride is not None and strides and 1 not in strides:
        raise ConfigError(
            f"network.max_stride is {config.max_stride}, but clips predict at stride "
            f"{max(strides)} only: add predict at stride 1, or leave max_stride out"
        )
    if config.prediction == "x0":
        raise ConfigError("network.prediction is x0, expected eps or v: x0 can only be exported")
    if config.prediction == "v" and config.timesteps != run.schedule.steps:
        raise ConfigError(
            f"network.timesteps is {config.timesteps}, expected {run.schedule.steps}: a network "
            "that predicts v holds a value for each of the schedule.steps"
        )
    if (config.context_dim is None) != (run.text is None):
        raise ConfigError(
            "network.context_dim and text belong together: set both for a denoiser that reads "
            "captions, or neither"
        )
    build(lambda wanted: _try(wanted, run, device), config)
    return config


def _try(config: UNet3dConfig, run: DiffusionRun, device: torch.device) -> None:
    """Send a clip of every kind through the network, without memory, before hours of encoding."""
    side = 2 ** (len(config.channel_mult) - 1)
    with torch.device("meta"):
        network = UNet3d(config)
        check_affordable(network, device)
        for kind in run.clips:
            clip = torch.empty(1, config.out_channels, kind.latents, side, side)
            number = torch.zeros(1, dtype=torch.int64)
            masked = config.in_channels > config.out_channels
            mask = torch.zeros(1, kind.latents) if masked else None
            level = number if config.num_classes is not None else None
            stride = number if config.max_stride is not None else None
            context = probe_context(run.text, config.context_dim)
            network(clip, number, mask, level, context, stride)


def check_initial(initial: UNet3d, config: UNet3dConfig, *, teacher: bool = False) -> None:
    """Refuse weights to start from that belong to a network of other sizes.

    What the last convolution gives may differ, ε and v are near each other at low noise; but not
    that of a teacher, who is taken at its word.
    Raises ConfigError: naming the fields.
    """
    free = set() if teacher else {"prediction", "timesteps"}
    theirs, ours = dataclasses.asdict(initial.config), dataclasses.asdict(config)
    wrong = [k for k in ours if k not in free and theirs[k] != ours[k]]
    if wrong:
        told = ", ".join(f"{name} {theirs[name]} instead of {ours[name]}" for name in wrong)
        raise ConfigError(f"start_from holds another network: {told}; make them equal")


def check_lengths(run: DiffusionRun, downsample: Sequence[int]) -> None:
    """Refuse clips longer than the encoded sequences, and sizes that levels or windows cut.

    Raises ConfigError: naming the field and what it needs.
    """
    per_latent, *spatial = downsample
    halvings = 2 ** (len(run.network.get("channel_mult", UNet3dConfig.channel_mult)) - 1)
    for pixels, factor in zip(run.data.size, spatial, strict=True):
        if pixels % (factor * halvings):
            raise ConfigError(
                f"data.size is {run.data.size}, expected multiples of {factor * halvings}: the "
                f"levels of network.channel_mult halve the latents' {factor}-pixel grid"
            )
    if run.data.window % per_latent:
        raise ConfigError(
            f"data.window is {run.data.window}, expected a multiple of {per_latent}, "
            "the frames of one latent"
        )
    available = run.data.frames // per_latent
    for index, kind in enumerate(run.clips):
        span = (kind.latents - 1) * kind.stride + 1
        if span > available:
            raise ConfigError(
                f"clips[{index}] ({kind.kind}) spans {span} latents, but data.frames "
                f"{run.data.frames} gives {available}: raise data.frames to {span * per_latent}"
            )
