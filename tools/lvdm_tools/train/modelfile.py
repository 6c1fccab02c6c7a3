"""The trained model as `lvdm-export build-engines` reads it: model.safetensors and model.json."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from lvdm_engines.errors import TrainingError
from safetensors.torch import save_file

from lvdm_tools.train.state import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from lvdm_export.nets.autoencoder3d import Autoencoder3dConfig
    from torch import nn

    from lvdm_tools.train.config import Run


def autoencoder(run: Run, network: Autoencoder3dConfig, step: int) -> dict[str, Any]:
    """Describe an autoencoder; its latent statistics are measured when a denoiser is trained."""
    return {
        "kind": "autoencoder3d",
        "config": dataclasses.asdict(network),
        "frame_size": list(run.data.size),
        "provenance": provenance(run, step),
    }


def provenance(run: Run, step: int) -> dict[str, Any]:
    """Say where weights come from."""
    return {
        "name": run.name,
        "step": step,
        "seed": run.seed,
        "ema": run.ema is not None,
        "lvdm_rt": version("lvdm-rt"),
        "torch": torch.__version__,
    }


def write(folder: Path, network: nn.Module, description: dict[str, Any]) -> None:
    """Write weights and description, each whole or not at all, the description last.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise TrainingError(f"cannot create {folder}: {err.strerror}") from err
    # clones: padded convolutions list one tensor under two names, and the file format has no aliases
    tensors = {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in network.state_dict().items()
    }
    write_whole(folder / "model.safetensors", lambda draft: save_file(tensors, draft))
    text = json.dumps(description, indent=1)
    write_whole(folder / "model.json", lambda draft: draft.write_text(text, encoding="utf-8"))
