"""What a trained network is, apart from its weights; and our own checkpoint format.

A model on disk is two files: `NAME.safetensors` (weights under the official names, each tensor
once) and `NAME.json` (a `ModelRecord`). One that was trained with a text encoder of its own has
that in the same weights, and a `tokenizer.json` beside them.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from safetensors.torch import save_file
from torch import nn

from lvdm_engines.atomic import whole_file, whole_path
from lvdm_engines.defaults import Count
from lvdm_engines.errors import (
    CheckpointError,
    ConfigError,
    ExportError,
    cause,
    one_line,
)
from lvdm_engines.manifest import (
    InterpolateFacts,
    Length,
    PredictFacts,
    ScheduleFacts,
    ShortFacts,
    Size,
)
from lvdm_export.checkpoint.keys import Checkpoint
from lvdm_export.checkpoint.weights import NetworkConfig
from lvdm_export.config.bounded_file import read_bounded
from lvdm_export.nets.autoencoder2d import Autoencoder2dConfig
from lvdm_export.nets.autoencoder3d import Autoencoder3dConfig
from lvdm_export.nets.text import TextEncoderConfig
from lvdm_export.nets.unet3d import UNet3dConfig

SCHEMA = 1
_SCALE = "scale_factor"  # as the authors' trainer stores it
Kind = Literal["unet3d", "autoencoder3d", "autoencoder2d"]

_CONFIGS: dict[str, type[NetworkConfig]] = {
    "unet3d": UNet3dConfig,
    "autoencoder3d": Autoencoder3dConfig,
    "autoencoder2d": Autoencoder2dConfig,
}


class ModelRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One trained network.

    `config` are the sizes in the words of the network's own config class. `frame_size` and
    `latent_size` are (height, width); `scale` and `shift` normalise latents as
    scale * (mean + shift); `decode_window` is how many latents the autoencoder was trained on.
    A denoiser has one entry of facts for every kind of clip it was trained for; `text_encoder` are
    the sizes of the one that was trained with it, if its weights hold one. One that learnt to take
    few calls for a clip, from another denoiser, has their number in `calls`.
    """

    schema: int = SCHEMA
    kind: Kind
    config: dict[str, Any]
    frame_size: Size | None = None
    latent_size: Size | None = None
    scale: float | None = None
    shift: float | None = None
    decode_window: Length | None = None
    schedule: ScheduleFacts | None = None
    predict: PredictFacts | None = None
    interpolate: InterpolateFacts | None = None
    short: ShortFacts | None = None
    noise_levels: Count | None = None
    context_tokens: Count | None = None
    calls: Count | None = None
    text_encoder: TextEncoderConfig | None = None
    ema: bool = False
    provenance: dict[str, Any] = {}

    def network_config(self) -> NetworkConfig:
        """Return the network's config.

        Raises ConfigError for unknown, missing or impossible sizes.
        """
        try:
            return msgspec.convert(self.config, _CONFIGS[self.kind], strict=True)
        except (msgspec.ValidationError, ValueError) as err:
            raise ConfigError(f"config of the {self.kind}: {err}") from err


def read_record(path: Path) -> ModelRecord:
    """Read the JSON half of a model.

    Raises ConfigError: unreadable, not JSON, unknown or missing fields, a newer schema.
    """
    data = read_bounded(path)
    try:
        record = msgspec.json.decode(data, type=ModelRecord)
        record.network_config()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConfigError) as err:
        raise ConfigError(f"{path}: {one_line(str(err), 300)}") from err
    if record.schema != SCHEMA:
        raise ConfigError(f"{path} has schema {record.schema}, expected {SCHEMA}")
    return record


def scaled(record: ModelRecord, checkpoint: Checkpoint) -> ModelRecord:
    """Take the latents' scale from the checkpoint where the authors' trainer measured it."""
    if record.scale is not None or _SCALE not in checkpoint.shapes:
        return record
    if math.prod(checkpoint.shapes[_SCALE]) != 1:
        raise CheckpointError(f"{checkpoint.path}: {_SCALE} is not one number")
    return msgspec.structs.replace(record, scale=float(checkpoint.read(_SCALE)))


def save_model(
    folder: Path, record: ModelRecord, tensors: Mapping[str, torch.Tensor] | nn.Module
) -> tuple[Path, Path]:
    """Write `model.safetensors` and `model.json` into a folder; each appears only when whole.

    Tensors that share memory (the autoencoder has such twins) are written once.

    Raises:
        ExportError: the folder cannot be written.

    """
    state = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    weights, description = folder / "model.safetensors", folder / "model.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_path(weights) as part:
            save_file(_without_twins(state), part)
        with whole_file(description) as file:
            file.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    except OSError as err:
        raise ExportError(f"cannot write the model into {folder}: {cause(err)}") from err
    return description, weights


def _without_twins(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    kept: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        # The longer name is the parameter's own; the shorter one is the official second name.
        before = kept.get(tensor.data_ptr())
        if before is None or len(before[0]) < len(name):
            kept[tensor.data_ptr()] = (name, tensor)
    return {name: tensor.detach().contiguous().cpu() for name, tensor in kept.values()}
