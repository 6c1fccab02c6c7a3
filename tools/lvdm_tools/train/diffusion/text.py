"""Text in a denoiser's training: the encoder that is trained with it or frozen, and its tokenizer.

Captions are those of the encoded sequences; a tokenizer of byte pairs is made of them once, at the
start of a run. Knows nothing of the loop or of latents.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from lvdm_engines.atomic import read_file
from lvdm_engines.bundle import file_sha256
from lvdm_engines.errors import ConfigError
from lvdm_engines.manifest import TOKENIZER, ContextFacts
from lvdm_export.checkpoint.keys import TEXT_ENCODER, open_checkpoint
from lvdm_export.checkpoint.weights import load_text_encoder
from lvdm_export.config.model_json import read_record
from lvdm_export.config.text_config import read_clip_config
from lvdm_export.nets.text import TextEncoder, TextEncoderConfig
from lvdm_export.nets.unet3d import UNet3d
from lvdm_export.text.source import Reader, find_text
from lvdm_export.text.tokenizer import trained_tokenizer
from lvdm_tools.train import state
from lvdm_tools.train.config import TextTraining
from lvdm_tools.train.networks import build


class PromptedUNet(nn.Module):
    """A denoiser with the encoder of its prompts: tokens int64 (b, l) in the place of a context."""

    def __init__(self, denoiser: UNet3d, text_encoder: TextEncoder) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.text_encoder = text_encoder

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        mask: Tensor | None,
        level: Tensor | None,
        tokens: Tensor,
        stride: Tensor | None,
    ) -> Tensor:
        """Return eps (b, c, t, h, w); see `UNet3d`."""
        eps: Tensor = self.denoiser(x, timestep, mask, level, self.text_encoder(tokens), stride)
        return eps

    def exported(self) -> dict[str, Tensor]:
        """Return the weights by the names under which checkpoints keep them."""
        encoder = self.text_encoder.state_dict()
        return self.denoiser.state_dict() | {TEXT_ENCODER + k: v for k, v in encoder.items()}


@dataclass(frozen=True, eq=False)
class Prompts:
    """How captions become what the network reads; `tokenizer` holds the file of that name."""

    encoder: TextEncoder
    tokenizer: bytes

    def tokens(self, captions: Sequence[str]) -> NDArray[np.int64]:
        """Return tokens int64 (b, l), cut and padded; "" is the prompt of nothing in particular."""
        made = Tokenizer.from_str(self.tokenizer.decode())
        return np.array([made.encode(caption).ids for caption in captions], np.int64)


def make_prompts(
    asked: TextTraining, width: int, captions: Sequence[str], folder: Path, start: Path | None
) -> Prompts:
    """Take the frozen encoder, that of the model to `start` from, or a new one.

    The tokenizer is kept in the run's `folder`, where a resumed run, which starts from nothing any
    more, finds it.

    Raises ConfigError: no caption to learn from, or an encoder of other sizes; LvdmError: a file
    cannot be read.
    """
    if asked.frozen is not None:
        prompts = _read(asked.frozen, width)
        prompts.encoder.requires_grad_(False)
        return prompts
    kept = folder / TOKENIZER
    if start is not None:
        prompts = _read(start, width)
        vocabulary = prompts.encoder.config.vocabulary
        if prompts.encoder.config != encoder_config(asked, width, vocabulary):
            raise ConfigError(
                f"start_from holds a text encoder of other sizes ({prompts.encoder.config}); make "
                "those of text equal"
            )
        prompts.encoder.requires_grad_(True)
        state.write_whole(kept, lambda draft: draft.write_bytes(prompts.tokenizer))
        return prompts
    if not any(captions):
        raise ConfigError(
            "text is set, but no video has a caption: put captions.jsonl beside the videos, one "
            '{"file": "a.mp4", "caption": "clouds at noon"} a line, or take text out of the config'
        )
    if not kept.exists():
        words = trained_tokenizer(captions, asked.vocabulary, asked.tokens)
        state.write_whole(kept, lambda draft: draft.write_bytes(words))
    with state.reading(kept):
        tokenizer = read_file(kept)
        vocabulary = Tokenizer.from_str(tokenizer.decode()).get_vocab_size()
    return Prompts(build(TextEncoder, encoder_config(asked, width, vocabulary)), tokenizer)


def frozen_sha256(path: Path) -> str:
    """Return what tells frozen encoders apart: a digest of weights and tokenizer.

    Raises ConfigError: there is none.
    """
    files = [_model(path) / name for name in ("model.safetensors", TOKENIZER)]
    if not all(file.is_file() for file in files):
        raise ConfigError(
            f"text.frozen: {path} holds no text encoder ({' and '.join(f.name for f in files)}); "
            "name a model that reads text, its run, or a folder of CLIP"
        )
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def encoder_config(asked: TextTraining, width: int, vocabulary: int) -> TextEncoderConfig:
    """Return the sizes of a new encoder. Raises ConfigError: they do not fit together."""
    try:
        return TextEncoderConfig(
            layers=asked.layers,
            width=width,
            heads=asked.heads,
            inner=4 * width,
            vocabulary=vocabulary,
            tokens=asked.tokens,
        )
    except ValueError as err:
        raise ConfigError(f"text: {err}") from err


def _read(path: Path, width: int) -> Prompts:
    """Read the text encoder of a trained model, of its run, or of a folder of CLIP."""
    model = _model(path)
    if (model / "model.json").exists():
        weights, described = model / "model.safetensors", model / "model.json"
        record = read_record(described)
        if record.text_encoder is None:
            raise ConfigError(f"{path} holds no text encoder; name a model that reads text")
        config, readers = record.text_encoder, [Reader(described, record, open_checkpoint(weights))]
        folder = None
    else:
        config, readers, folder = read_clip_config(path / "config.json"), [], path
    if config.width != width:
        raise ConfigError(
            f"{path} holds a text encoder of width {config.width}, but network.context_dim "
            f"is {width}; make them equal"
        )
    parts = find_text(readers, ContextFacts(config.tokens, width), folder, None)
    assert parts is not None  # noqa: S101 - a context was given
    return Prompts(load_text_encoder(parts.config, parts.checkpoint), parts.tokenizer)


def _model(path: Path) -> Path:
    return path / "model" if (path / "model").is_dir() else path


def probe_context(asked: TextTraining | None, width: int | None) -> Tensor | None:
    """Return an empty context (1, l, d) for the check of a network's sizes, and of its encoder's.

    Raises ConfigError.
    """
    if asked is None or width is None:
        return None
    if asked.frozen is None:
        encoder_config(asked, width, asked.vocabulary)
    return torch.empty(1, asked.tokens, width)
