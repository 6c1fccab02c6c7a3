"""Weights into networks, strictly: every key has to be there, and nothing else.

Networks are built without memory of their own and take the checkpoint's tensors as they are, so
that a file of several gigabytes is held once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

from lvdm_engines.errors import CheckpointError, ConfigError
from lvdm_export.checkpoint.keys import (
    Checkpoint,
    autoencoder_keys,
    denoiser_keys,
    text_encoder_keys,
)
from lvdm_export.checkpoint.noise_table import ALPHA_BAR
from lvdm_export.nets.autoencoder2d import Autoencoder2d, Autoencoder2dConfig
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.layers import PaddedConv3d
from lvdm_export.nets.sizes import MOST_PARAMETERS
from lvdm_export.nets.text import TextEncoder, TextEncoderConfig
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig

NetworkConfig = UNet3dConfig | Autoencoder3dConfig | Autoencoder2dConfig
Network = UNet3d | Autoencoder3d | Autoencoder2d
N = TypeVar("N", bound=nn.Module)

_KINDS: dict[type, Callable[[Any], Network]] = {
    UNet3dConfig: UNet3d,
    Autoencoder3dConfig: Autoencoder3d,
    Autoencoder2dConfig: Autoencoder2d,
}
_SHOWN = 12


def build(config: NetworkConfig) -> Network:
    """Build a network whose parameters have shapes but no memory.

    Raises ConfigError for sizes that contradict each other, or are too many together.
    """
    return _without_memory(_KINDS[type(config)], config)


def _without_memory(kind: Callable[[Any], N], config: object) -> N:
    try:
        with torch.device("meta"):
            network = kind(config)
    except (ValueError, ZeroDivisionError, RuntimeError) as err:
        raise ConfigError(f"the network cannot be built: {str(err).splitlines()[0]}") from err
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MOST_PARAMETERS:
        raise ConfigError(
            f"the network would have {parameters:.2g} parameters, expected at most "
            f"{MOST_PARAMETERS:.2g}; lower its channels or levels"
        )
    return network


def load_denoiser(config: UNet3dConfig, checkpoint: Checkpoint, *, ema: bool) -> UNet3d:
    """Build a denoiser and give it the averaged (`ema`) or the plain weights of a checkpoint.

    Raises CheckpointError: keys are missing or left over, or shapes disagree with the config.
    """
    network = build(config)
    _fill(network, _denoiser_keys(network, checkpoint, ema=ema), checkpoint)
    assert isinstance(network, UNet3d)  # noqa: S101 - for the type checker
    return network


def load_autoencoder(
    config: Autoencoder3dConfig | Autoencoder2dConfig, checkpoint: Checkpoint
) -> Autoencoder3d | Autoencoder2d:
    """Build an autoencoder and give it the weights of a checkpoint.

    Raises CheckpointError: keys are missing or left over, or shapes disagree with the config.
    """
    network = build(config)
    _fill(network, autoencoder_keys(checkpoint), checkpoint)
    assert not isinstance(network, UNet3d)  # noqa: S101 - for the type checker
    return network


def load_text_encoder(config: TextEncoderConfig, checkpoint: Checkpoint) -> TextEncoder:
    """Build a text encoder and give it the weights of a checkpoint.

    Raises CheckpointError: keys are missing or left over, or shapes disagree with the config.
    """
    network = _without_memory(TextEncoder, config)
    _fill(network, text_encoder_keys(checkpoint), checkpoint)
    return network


def check_text_encoder(config: TextEncoderConfig, checkpoint: Checkpoint) -> TextEncoder:
    """Compare a text encoder's config with a checkpoint, as `check_fit` does for other networks."""
    network = _without_memory(TextEncoder, config)
    _sources(_names(network), text_encoder_keys(checkpoint), checkpoint)
    return network


def check_fit(config: NetworkConfig, checkpoint: Checkpoint, *, ema: bool) -> Network:
    """Compare a config with a checkpoint's names and shapes, without reading any weights.

    Returns the network, without memory. Raises CheckpointError as loading does.
    """
    network = build(config)
    if isinstance(network, UNet3d):
        keys = _denoiser_keys(network, checkpoint, ema=ema)
    else:
        keys = autoencoder_keys(checkpoint)
    _sources(_names(network), keys, checkpoint)
    return network


def _denoiser_keys(network: nn.Module, checkpoint: Checkpoint, *, ema: bool) -> dict[str, str]:
    parameters = [name for name, _ in network.named_parameters()]
    keys = denoiser_keys(checkpoint, parameters, ema=ema)
    if not checkpoint.ours and ALPHA_BAR in checkpoint.shapes and hasattr(network, "velocity"):
        keys["velocity.alpha_bar"] = ALPHA_BAR
    return keys


@dataclass(frozen=True)
class _Names:
    """Names of a network's tensors; `twins` are the names that share one tensor."""

    shapes: dict[str, tuple[int, ...]]
    twins: dict[str, list[str]]


def _names(network: nn.Module) -> _Names:
    tensors = network.state_dict(keep_vars=True)
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(id(tensor), []).append(name)
    return _Names(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {name: groups[id(tensor)] for name, tensor in tensors.items()},
    )


def _fill(network: nn.Module, keys: Mapping[str, str], checkpoint: Checkpoint) -> None:
    names = _names(network)
    sources = _sources(names, keys, checkpoint)
    read = cache(checkpoint.read)  # so that twins stay one tensor
    tensors = {name: _as_float32(key, read(key), checkpoint) for name, key in sources.items()}
    _check_twins(names, keys, read, checkpoint)
    network.load_state_dict(tensors, strict=True, assign=True)
    for layer in network.modules():
        if isinstance(layer, PaddedConv3d):
            layer.weight = layer.conv.weight  # assigning gave every name a parameter of its own
    network.eval().requires_grad_(requires_grad=False)


def _sources(names: _Names, keys: Mapping[str, str], checkpoint: Checkpoint) -> dict[str, str]:
    """Return the checkpoint's key for every name, once all are there in the right shapes."""
    candidates = {
        name: next((keys[twin] for twin in names.twins[name] if twin in keys), None)
        for name in names.shapes
    }
    _check_complete(candidates, keys, checkpoint)
    sources = {name: key for name, key in candidates.items() if key is not None}
    _check_shapes(sources, names, checkpoint)
    return sources


def _check_complete(
    sources: Mapping[str, str | None], keys: Mapping[str, str], checkpoint: Checkpoint
) -> None:
    missing = [name for name, key in sources.items() if key is None]
    unexpected = [key for name, key in keys.items() if name not in sources]
    parts = [
        f"{len(listed)} {what} "
        f"({', '.join(listed[:_SHOWN])}{', …' if len(listed) > _SHOWN else ''})"
        for what, listed in (("missing keys", missing), ("unexpected keys", unexpected))
        if listed
    ]
    if parts:
        raise CheckpointError(
            f"{checkpoint.path} does not fit its config: {' and '.join(parts)}; "
            "check that both belong to the same model"
        )


def _check_shapes(sources: Mapping[str, str], names: _Names, checkpoint: Checkpoint) -> None:
    for name, key in sources.items():
        expected, stored = names.shapes[name], checkpoint.shapes[key]
        if expected != stored:
            raise CheckpointError(
                f"{checkpoint.path}: {key} has shape {list(stored)}, but the config expects "
                f"{list(expected)}; check that both belong to the same model"
            )


def _as_float32(key: str, tensor: torch.Tensor, checkpoint: Checkpoint) -> torch.Tensor:
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{checkpoint.path}: {key} is {tensor.dtype}, expected floating point numbers; "
            "convert a quantized checkpoint back, or take the one it was made from"
        )
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise CheckpointError(
            f"{checkpoint.path}: {key} holds NaN or infinity; take an earlier checkpoint"
        )
    return tensor


def _check_twins(
    names: _Names,
    keys: Mapping[str, str],
    read: Callable[[str], torch.Tensor],
    checkpoint: Checkpoint,
) -> None:
    """Refuse a checkpoint whose two copies of one tensor differ: nothing says which one counts."""
    for name, twins in names.twins.items():
        present = [twin for twin in twins if twin in keys]
        if name != twins[0] or len(present) < 2:
            continue
        first, *others = (read(keys[twin]) for twin in present)
        if any(not torch.equal(first, other) for other in others):
            raise CheckpointError(
                f"{checkpoint.path}: {' and '.join(keys[t] for t in present)} differ, but the "
                "network has one tensor for both; take the checkpoint as its trainer wrote it"
            )
