"""Which tensors of a checkpoint belong to which network.

A checkpoint is untrusted: it is read by `archive` (PyTorch) or safetensors, neither of which can
run code. Knows the official key names; knows nothing of the networks' sizes.
"""

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lvdm_engines.errors import CheckpointError
from lvdm_export.checkpoint.archive import open_archive
from lvdm_export.checkpoint.unpickle import TensorRef

_DENOISER = "model.diffusion_model."
_EMA = "model_ema."
_EMA_COUNTERS = {"model_ema.decay", "model_ema.num_updates"}
_AUTOENCODER = "first_stage_model."
TEXT_ENCODER = "cond_stage_model.transformer."
_TOKENS = "embeddings.token_embedding.weight"
_TEXT_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
_AUTOENCODER_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a file by name: `shapes` is known at once, `read` loads one of them.

    `ours` says that the file is in this project's own format: bare names, but for a text encoder.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], torch.Tensor]
    ours: bool

    def below(self, prefix: str) -> dict[str, str]:
        """Map the names below a prefix, without it, to whole names."""
        return {key.removeprefix(prefix): key for key in self.shapes if key.startswith(prefix)}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a `.safetensors` file of ours, or anything written by `torch.save`.

    Raises CheckpointError: missing, unreadable, damaged, or without tensors.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as err:
        raise CheckpointError(f"there is no checkpoint {path}") from err
    except OSError as err:
        raise CheckpointError(f"cannot read the checkpoint {path}: {err.strerror}") from err
    if stat.S_ISDIR(mode):
        raise CheckpointError(
            f"{path} is a directory, expected a .ckpt or .safetensors file; name one in it"
        )
    if not stat.S_ISREG(mode):
        raise CheckpointError(
            f"{path} is a pipe or a device, expected a .ckpt or .safetensors file"
        )
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_torch(path)


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        file: Any = safe_open(path, framework="pt")
        names = list(file.keys())
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as err:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({err}); copy it again"
        ) from err
    return Checkpoint(path, shapes, file.get_tensor, ours=True)


def _open_torch(path: Path) -> Checkpoint:
    archive = open_archive(path)
    root = archive.root
    state = root["state_dict"] if isinstance(root, dict) and "state_dict" in root else root
    refs = _tensors(state)
    if not refs:
        raise CheckpointError(f"{path} holds no state_dict of tensors, expected a model checkpoint")
    shapes = {key: ref.shape for key, ref in refs.items()}
    return Checkpoint(path, shapes, lambda key: archive.tensor(refs[key], key), ours=False)


def _tensors(state: Any) -> dict[str, TensorRef]:
    if not isinstance(state, dict):
        return {}
    return {k: r for k, r in state.items() if isinstance(k, str) and isinstance(r, TensorRef)}


def denoiser_keys(
    checkpoint: Checkpoint, parameters: Iterable[str], *, ema: bool
) -> dict[str, str]:
    """Map the denoiser's names to the checkpoint's.

    The averaged copies are stored under the parameter's name without its dots, so they are found
    from the network's own `parameters`. Names that the network lacks are kept as they are.

    Raises CheckpointError: the checkpoint holds no denoiser, or no averaged copy of it.
    """
    if checkpoint.ours:
        return {k: k for k in checkpoint.shapes if not k.startswith(TEXT_ENCODER)}
    plain = checkpoint.below(_DENOISER)
    if not plain:
        raise CheckpointError(
            f"{checkpoint.path} holds no denoiser: no key starts with {_DENOISER!r}"
        )
    if not ema:
        return plain
    averaged = [k for k in checkpoint.shapes if k.startswith(_EMA) and k not in _EMA_COUNTERS]
    if not averaged:
        raise CheckpointError(
            f"{checkpoint.path} holds no EMA weights; use --no-ema for the plain ones"
        )
    stored = {_ema_name(name): name for name in parameters}
    if len(stored) != len(list(parameters)):
        raise CheckpointError("two parameters have the same EMA name; use --no-ema")
    return {stored.get(key, key): key for key in averaged}


def _ema_name(parameter: str) -> str:
    return _EMA + f"diffusion_model.{parameter}".replace(".", "")


def autoencoder_keys(checkpoint: Checkpoint) -> dict[str, str]:
    """Map the autoencoder's names to the checkpoint's; training losses are left out.

    Raises CheckpointError where there is no autoencoder in it.
    """
    if checkpoint.ours:
        return checkpoint.below("")
    keys = checkpoint.below(_AUTOENCODER) or checkpoint.below("")
    if not any(key.startswith(_AUTOENCODER_PARTS) for key in keys):
        raise CheckpointError(
            f"{checkpoint.path} holds no autoencoder: no key starts with {_AUTOENCODER!r} or "
            f"{_AUTOENCODER_PARTS[0]!r}; name its checkpoint with --autoencoder"
        )
    return {name: key for name, key in keys.items() if not name.startswith("loss.")}


def text_encoder_keys(checkpoint: Checkpoint) -> dict[str, str]:
    """Map the text encoder's names to the checkpoint's; there are none where it holds no encoder.

    It stands where the authors' trainer puts it, or alone, as Hugging Face's CLIP models do; until
    version 5 of their library all names began with `text_model`, and with a table of positions.
    """
    for prefix in (f"{TEXT_ENCODER}text_model.", TEXT_ENCODER, "text_model.", ""):
        keys = checkpoint.below(prefix)
        if _TOKENS in keys:
            known = {name: key for name, key in keys.items() if name.startswith(_TEXT_PARTS)}
            known.pop("embeddings.position_ids", None)
            return known
    return {}
