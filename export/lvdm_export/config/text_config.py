"""Sizes of a text encoder: from Hugging Face's config.json, or from the shapes of its weights."""

from pathlib import Path
from typing import get_type_hints

import msgspec

from lvdm_engines.errors import CheckpointError, ConfigError, one_line
from lvdm_export.checkpoint.keys import Checkpoint
from lvdm_export.config.bounded_file import read_bounded
from lvdm_export.config.mapping import StrictMapping
from lvdm_export.nets.text import TextEncoderConfig

_FIELDS: dict[str, tuple[str, int | str]] = {  # ours, theirs, and their default
    "layers": ("num_hidden_layers", 12),
    "width": ("hidden_size", 512),
    "heads": ("num_attention_heads", 8),
    "inner": ("intermediate_size", 2048),
    "vocabulary": ("vocab_size", 49408),
    "tokens": ("max_position_embeddings", 77),
    "activation": ("hidden_act", "quick_gelu"),
}
_HEAD = 64  # channels of a head in every CLIP text model


def read_clip_config(path: Path) -> TextEncoderConfig:
    """Read the config.json of a CLIP model, or of its text half alone.

    What it leaves out has the value that Hugging Face's library gives it.

    Raises ConfigError: unreadable, another kind of model, values that are not supported.
    """
    try:
        raw = msgspec.json.decode(read_bounded(path))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise ConfigError(f"{path} is not JSON: {one_line(str(err), 160)}") from err
    whole = StrictMapping(raw, str(path))
    if whole.read("model_type", str, "clip_text_model") not in ("clip", "clip_text_model"):
        whole.refuse("model_type", "clip or clip_text_model; other encoders are not supported")
    params = whole.section("text_config") if "text_config" in whole else whole
    params.fixed(layer_norm_eps=1e-5)
    kinds = get_type_hints(TextEncoderConfig, include_extras=True)
    values = {
        field: params.read(name, kinds[field], default)
        for field, (name, default) in _FIELDS.items()
    }
    return params.make(TextEncoderConfig, **values)


def clip_config_of(checkpoint: Checkpoint, keys: dict[str, str]) -> TextEncoderConfig:
    """Tell the sizes of a CLIP text encoder from the shapes of its weights.

    Heads and activation are those of every CLIP by OpenAI: 64 channels each, quick-GELU.

    Raises CheckpointError: the weights are not those of such an encoder.
    """
    shapes = {name: checkpoint.shapes[key] for name, key in keys.items()}
    layers = {name.split(".")[2] for name in keys if name.startswith("encoder.layers.")}
    try:
        vocabulary, width = shapes["embeddings.token_embedding.weight"]
        config = TextEncoderConfig(
            layers=len(layers),
            width=width,
            heads=_heads(width),
            inner=shapes["encoder.layers.0.mlp.fc1.weight"][0],
            vocabulary=vocabulary,
            tokens=shapes["embeddings.position_embedding.weight"][0],
        )
        return msgspec.convert(msgspec.to_builtins(config), TextEncoderConfig)
    except (LookupError, ArithmeticError, ValueError) as err:
        raise CheckpointError(
            f"{checkpoint.path}: the text encoder is not CLIP's ({one_line(str(err), 160)}); give "
            "the folder of the one that it was trained with (config.json, model.safetensors) "
            "with --text-encoder"
        ) from err


def _heads(width: int) -> int:
    if width % _HEAD:
        raise ValueError(f"{width} channels are no whole number of heads of {_HEAD}")
    return width // _HEAD
