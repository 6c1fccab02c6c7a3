"""Tiny networks to train, and whole runs of them."""

import json

import pytest

from lvdm_tools.train import config, start

TINY_AUTOENCODER = {
    "kind": "autoencoder",
    "name": "tiny",
    "seed": 1,
    "steps": 9,
    "batch": 2,
    "network": {"n_hiddens": 4, "downsample": [4, 8, 8], "norm_groups": 4},
    "data": {"size": [16, 16], "frames": 4},
    "optimizer": {"learning_rate": 1e-3, "warmup": 2},
    "loss": {"mse": 1.0, "l1": 0.2, "adversarial": {"start": 4, "channels": 8, "layers": 2}},
    "ema": 0.9,
    "device": {"accelerator": "cpu", "threads": 1},
    "every": {"log": 3, "checkpoint": 2, "sample": 100},
}
TINY_DENOISER = {
    "kind": "diffusion",
    "name": "tiny",
    "seed": 1,
    "steps": 6,
    "batch": 2,
    "autoencoder": "autoencoder",
    "network": {
        "in_channels": 5,
        "model_channels": 8,
        "num_res_blocks": 1,
        "channel_mult": [1],
        "attention_resolutions": [1],
        "num_heads": 2,
        "temporal_length": 3,
        "num_classes": 251,
        "norm_groups": 4,
    },
    "data": {"size": [16, 16], "frames": 16, "sequences": 3},
    "clips": [
        {"kind": "predict", "latents": 2, "stride": 2, "probability": 0.5},
        {"kind": "interpolate", "latents": 3, "probability": 0.5},
        {"kind": "unconditional", "latents": 3, "probability": 0.5},
    ],
    "optimizer": {"learning_rate": 1e-3},
    "ema": 0.9,
    "device": {"accelerator": "cpu", "threads": 1},
    "every": {"log": 3, "checkpoint": 2, "sample": 100},
}


def _changed(settings, path, value):
    copy = json.loads(json.dumps(settings))
    *parents, last = path.split(".")
    inner = copy
    for parent in parents:
        inner = inner[int(parent) if parent.isdigit() else parent]
    inner[last] = value
    return copy


def _train(settings, out, *, resume=False, report=lambda _: None, data="synth"):
    run = config.parse(settings, settings["kind"], "test")
    return start.run_training(start.TrainingRequest(run, data, out, report, resume))


@pytest.fixture(scope="session")
def changed():
    """Return a function that copies settings with one field (a dotted path) set."""
    return _changed


@pytest.fixture(scope="session")
def train():
    """Return a function that trains as settings say."""
    return _train


@pytest.fixture(scope="session")
def tiny():
    """Settings of an autoencoder that trains in a second."""
    return TINY_AUTOENCODER


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory):
    """Return the folder of an uninterrupted autoencoder run."""
    out = tmp_path_factory.mktemp("whole") / "autoencoder"
    _train(TINY_AUTOENCODER, out)
    return out


@pytest.fixture(scope="session")
def tiny_denoiser(autoencoder):
    """Settings of a denoiser on that autoencoder's latents."""
    return _changed(TINY_DENOISER, "autoencoder", str(autoencoder))


@pytest.fixture(scope="session")
def denoiser(tmp_path_factory, tiny_denoiser):
    """Return the folder of an uninterrupted denoiser run."""
    out = tmp_path_factory.mktemp("whole") / "denoiser"
    _train(tiny_denoiser, out)
    return out
