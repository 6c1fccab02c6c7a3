"""Tiny models on disk: an official-looking YAML and Lightning checkpoint, and files of our own."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from toy_checkpoints import (
    AUTOENCODER,
    UNET,
    filled,
    official_state,
    official_yaml,
    quiet,
    write_ours,
)

from lvdm_export.build import build
from lvdm_export.inputs import BuildOptions, Source
from lvdm_export.nets.autoencoder3d import Autoencoder3d
from lvdm_export.nets.unet3d import UNet3d


class Callback:
    """A class of the trainer that only the pickle names."""

    def __init__(self):
        self.best = torch.ones(2)


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    torch.set_num_threads(2)


@dataclass(frozen=True)
class Model:
    """Networks and the files that hold them."""

    config: Path
    checkpoint: Path
    unet: nn.Module
    ema: nn.Module
    autoencoder: nn.Module


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """Write a YAML file and a Lightning checkpoint with callback state in it."""
    folder = tmp_path_factory.mktemp("official")
    unet, ema = filled(UNet3d(UNET), 1), filled(UNet3d(UNET), 2)
    autoencoder = filled(Autoencoder3d(AUTOENCODER), 3)
    config, checkpoint = folder / "model.yaml", folder / "model.ckpt"
    config.write_text(yaml.safe_dump(official_yaml()))
    content = {
        "epoch": 3,
        "state_dict": official_state(unet, ema, autoencoder),
        "callbacks": {Callback: Callback()},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    }
    torch.save(content, checkpoint)
    return Model(config, checkpoint, unet, ema, autoencoder)


@pytest.fixture(scope="session")
def ours(tmp_path_factory):
    """Write a denoiser that was trained jointly and an autoencoder in our own format."""
    unet, autoencoder = filled(UNet3d(UNET), 1), filled(Autoencoder3d(AUTOENCODER), 3)
    config, checkpoint = write_ours(tmp_path_factory.mktemp("ours"))
    return Model(config, checkpoint, unet, unet, autoencoder)


@pytest.fixture(scope="session")
def bundle(official, tmp_path_factory):
    """Export the official-looking model once, as predictor and as infill network."""
    source = Source(official.config, official.checkpoint)
    return build(
        BuildOptions(
            denoisers={"predict": source, "interpolate": source},
            out=tmp_path_factory.mktemp("bundles") / "tiny",
            decode_window=2,
            sampling={"eta": 0.9, "refine": 1},
        ),
        quiet,
    )
