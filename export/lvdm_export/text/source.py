"""Which text encoder and which tokenizer belong to the networks of a bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.errors import CheckpointError, ConfigError
from lvdm_engines.manifest import TOKENIZER, ContextFacts, TokenizerFacts
from lvdm_export.checkpoint.keys import (
    TEXT_ENCODER,
    Checkpoint,
    open_checkpoint,
    text_encoder_keys,
)
from lvdm_export.config.model_json import ModelRecord
from lvdm_export.config.text_config import clip_config_of, read_clip_config
from lvdm_export.nets.text import TextEncoderConfig
from lvdm_export.text.tokenizer import fitted_tokenizer

_GIVE = (
    "give the folder of the one that it was trained with (config.json, model.safetensors) with "
    "--text-encoder"
)


@dataclass(frozen=True)
class Reader:
    """A denoiser that reads text: its config's path, what that says, and its checkpoint."""

    path: Path
    record: ModelRecord
    checkpoint: Checkpoint


@dataclass(frozen=True)
class TextParts:
    """A text encoder's sizes and the file that holds it, and the tokenizer as bundles keep it."""

    config: TextEncoderConfig
    checkpoint: Checkpoint
    tokenizer: bytes

    def keep_tokenizer(self, writer: BundleWriter) -> TokenizerFacts:
        """Write the tokenizer into a bundle."""
        return writer.keep_tokenizer(self.tokenizer, self.config.vocabulary)


def find_text(
    readers: Sequence[Reader],
    context: ContextFacts | None,
    folder: Path | None,
    tokenizer: Path | None,
) -> TextParts | None:
    """Find the text encoder in `folder` or in a checkpoint, and the tokenizer that is its own.

    A tokenizer that is not named lies in the folder, or beside the config of a network.

    Raises ConfigError or CheckpointError: there is none, several differ, or they do not fit.
    """
    if context is None:
        if folder is not None or tokenizer is not None:
            raise ConfigError(
                "no network reads a text context; leave --text-encoder and --tokenizer out"
            )
        return None
    if folder is None:
        config, checkpoint = _in_checkpoints(readers)
    else:
        config, checkpoint = _in_folder(folder)
    path = tokenizer or _beside([*([folder] if folder else []), *(r.path.parent for r in readers)])
    return TextParts(config, checkpoint, fitted_tokenizer(path, context.tokens, config.vocabulary))


def _in_folder(folder: Path) -> tuple[TextEncoderConfig, Checkpoint]:
    config = read_clip_config(folder / "config.json")
    checkpoint = open_checkpoint(folder / "model.safetensors")
    if not text_encoder_keys(checkpoint):
        raise CheckpointError(f"{checkpoint.path} holds no text encoder of CLIP; {_GIVE}")
    return config, checkpoint


def _in_checkpoints(readers: Sequence[Reader]) -> tuple[TextEncoderConfig, Checkpoint]:
    """Return the encoder that all checkpoints which hold one agree on."""
    files = {reader.checkpoint.path: reader for reader in readers}
    found = [r for r in files.values() if text_encoder_keys(r.checkpoint)]
    if not found:
        raise CheckpointError(
            f"{readers[0].path} describes a network that reads text, but "
            f"{', '.join(map(str, files))} holds no text encoder (no key starts with "
            f"{TEXT_ENCODER!r}); {_GIVE}"
        )
    first, *others = found
    for other in others:
        if _sizes(other) != _sizes(first) or not _equal(other.checkpoint, first.checkpoint):
            raise CheckpointError(
                f"{first.checkpoint.path} and {other.checkpoint.path} hold different text "
                "encoders, but a bundle has one; export them as two bundles, or name the one for "
                "both with --text-encoder"
            )
    return _sizes(first), first.checkpoint


def _sizes(reader: Reader) -> TextEncoderConfig:
    told = reader.record.text_encoder
    if told is not None:
        return told
    if reader.checkpoint.ours:
        raise ConfigError(
            f"{reader.path} has no text_encoder, but {reader.checkpoint.path} holds one; add its "
            "sizes, or name another with --text-encoder"
        )
    return clip_config_of(reader.checkpoint, text_encoder_keys(reader.checkpoint))


def _equal(one: Checkpoint, other: Checkpoint) -> bool:
    keys, others = text_encoder_keys(one), text_encoder_keys(other)
    return keys.keys() == others.keys() and all(
        torch.equal(one.read(key), other.read(others[name])) for name, key in keys.items()
    )


def _beside(folders: Sequence[Path]) -> Path:
    for folder in folders:
        if (folder / TOKENIZER).is_file():
            return folder / TOKENIZER
    raise ConfigError(
        f"no {TOKENIZER} lies in {' or '.join(map(str, dict.fromkeys(folders)))}; name the text "
        "encoder's with --tokenizer (lvdm-export make-tokenizer makes CLIP's)"
    )
