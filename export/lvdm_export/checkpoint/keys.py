"""Which tensors of a checkpoint belong to which network.

A checkpoint is untrusted: it is read by `archive` (PyTorch) or safetensors, neither of which can
run code. Knows the official key names; knows nothing of the networks' sizes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lvdm_engines.atomic import read_file
from lvdm_engines.errors import CheckpointError, cause, quoted
from lvdm_export.checkpoint.archive import open_archive
from lvdm_export.checkpoint.shards import INDEX, find_file, read_index
from lvdm_export.checkpoint.unpickle import TensorRef
from lvdm_export.checkpoint.wrappers import (
    AUTOENCODER,
    AUTOENCODER_PARTS,
    DENOISER,
    EMA,
    is_official,
    unwrap,
)

_EMA_COUNTERS = {EMA + "decay", EMA + "num_updates"}
TEXT_ENCODER = "cond_stage_model.transformer."
_TOKENS = "embeddings.token_embedding.weight"
_TEXT_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a file by name: `shapes` is known at once, `read` loads one of them.

    `ours` says that the file is in this project's own format: bare names, but for a text encoder.
    `files` are all that its tensors lie in; `renamed` is a key as it is stored, and as it is read,
    where a trainer wrapped something around the names.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], torch.Tensor]
    ours: bool
    files: tuple[Path, ...] = ()
    renamed: tuple[str, str] | None = None

    def below(self, prefix: str) -> dict[str, str]:
        """Map the names below a prefix, without it, to whole names."""
        return {key.removeprefix(prefix): key for key in self.shapes if key.startswith(prefix)}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open `.safetensors` or anything written by `torch.save`, in one file, a folder or shards.

    Raises CheckpointError: missing, unreadable, damaged, or without tensors.
    """
    file = find_file(path)
    stored = _open_shards(file) if file.name.endswith(INDEX) else _open_file(file)
    names = unwrap(stored.shapes)
    return Checkpoint(
        path,
        {name: stored.shapes[key] for name, key in names.items()},
        lambda name: stored.read(names[name]),
        ours=stored.ours and not is_official(names),
        files=stored.files,
        renamed=next(((key, name) for name, key in names.items() if key != name), None),
    )


def _open_file(path: Path) -> Checkpoint:
    return _open_safetensors(path) if _is_safetensors(path) else _open_torch(path)


def _is_safetensors(path: Path) -> bool:
    """Know the form by what is in the file, or else by its name: a length, then a JSON object."""
    try:
        begins = read_file(path, 9)
    except OSError:  # which the reader names
        begins = b""
    return begins[8:] == b"{" or path.suffix == ".safetensors"


def _open_shards(index: Path) -> Checkpoint:
    """Open every file that an index names, as one checkpoint."""
    shards = read_index(index)
    opened = {path: _open_file(find_file(path)) for path in shards}
    owner: dict[str, Checkpoint] = {}
    for path, keys in shards.items():
        for key in keys:
            if key not in opened[path].shapes:
                raise CheckpointError(
                    f"{path} lacks {quoted(key)}, which {index.name} says is in it; copy both again"
                )
            owner[key] = opened[path]
    return Checkpoint(
        index,
        {key: shard.shapes[key] for key, shard in owner.items()},
        lambda key: owner[key].read(key),
        ours=all(shard.ours for shard in opened.values()),
        files=(index, *opened),
    )


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        file: Any = safe_open(path, framework="pt")
        names = list(file.keys())
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except OSError as err:
        raise CheckpointError(f"{path} cannot be read: {cause(err, 'copy it again')}") from err
    except SafetensorError as err:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({err}); copy it again"
        ) from err
    return Checkpoint(path, shapes, file.get_tensor, ours=True, files=(path,))


def _open_torch(path: Path) -> Checkpoint:
    archive = open_archive(path)
    root = archive.root
    refs = next(filter(None, map(_tensors, _states(root))), None)
    if not refs:
        raise CheckpointError(f"{path} holds no state_dict of tensors, expected a model checkpoint")
    shapes = {key: ref.shape for key, ref in refs.items()}
    return Checkpoint(
        path, shapes, lambda key: archive.tensor(refs[key], key), ours=False, files=(path,)
    )


def _states(root: Any) -> list[Any]:
    """List where a state_dict may be: under Lightning's name, DeepSpeed's, or all there is."""
    if isinstance(root, dict) and "state_dict" in root:
        return [root["state_dict"]]
    return [root.get("module"), root] if isinstance(root, dict) else []


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
    plain = checkpoint.below(DENOISER)
    averaged = [k for k in checkpoint.shapes if k.startswith(EMA) and k not in _EMA_COUNTERS]
    if not plain and not (ema and averaged):
        raise CheckpointError(
            f"{checkpoint.path} holds no denoiser: no key starts with {DENOISER!r}"
        )
    if not ema:
        return plain
    if not averaged:
        raise CheckpointError(
            f"{checkpoint.path} holds no EMA weights; use --no-ema for the plain ones"
        )
    stored = {_ema_name(name): name for name in parameters}
    if len(stored) != len(list(parameters)):
        raise CheckpointError("two parameters have the same EMA name; use --no-ema")
    return {stored.get(key, key): key for key in averaged}


def _ema_name(parameter: str) -> str:
    return EMA + f"diffusion_model.{parameter}".replace(".", "")


def autoencoder_keys(checkpoint: Checkpoint) -> dict[str, str]:
    """Map the autoencoder's names to the checkpoint's; what only training needs is left out.

    Raises CheckpointError where there is no autoencoder in it.
    """
    keys = checkpoint.below(AUTOENCODER) or checkpoint.below("")
    if not any(key.startswith(AUTOENCODER_PARTS) for key in keys):
        raise CheckpointError(
            f"{checkpoint.path} holds no autoencoder: no key starts with {AUTOENCODER!r} or "
            f"{AUTOENCODER_PARTS[0]!r}; name its checkpoint with --autoencoder"
        )
    return {
        name: key
        for name, key in keys.items()
        if not name.startswith("loss.") and not name.endswith(".num_batches_tracked")
    }


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
