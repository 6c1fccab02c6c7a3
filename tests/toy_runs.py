"""Tiny networks to train: settings of a run, runs of them, and what a run has left."""

import json
import threading
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from lvdm_tools.train import config, start

# trains in a second
AUTOENCODER = {
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
# on the latents of such an autoencoder, whose run is still to be named
DENOISER = {
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


def changed(settings: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Copy settings with some fields set, each named by a dotted path."""
    copy: dict[str, Any] = json.loads(json.dumps(settings))
    for path, value in fields.items():
        *parents, last = path.split(".")
        inner: Any = copy
        for parent in parents:
            inner = inner[int(parent) if parent.isdigit() else parent]
        inner[last] = value
    return copy


def train(
    settings: dict[str, Any],
    out: Path,
    *,
    data: str = "synth",
    report: Any = lambda _: None,
    **how: Any,
) -> int | None:
    """Train as settings say; `how` are the other fields of a request."""
    run = config.parse(settings, settings["kind"], "test")
    return start.run_training(start.TrainingRequest(run, data, out, report, **how))


def interrupted(settings: dict[str, Any], out: Path, at: int) -> int | None:
    """Train until the log line of step `at`, then stop as a signal would."""
    stop = threading.Event()

    def report(record: dict[str, Any]) -> None:
        if record["step"] >= at and "phase" not in record:
            stop.set()

    return train(settings, out, report=report, stop=stop)


def state_of(run: Path) -> dict[str, Any]:
    """Return the tensors of a run's checkpoint."""
    return load_file(run / "state.safetensors")


def model_of(run: Path) -> dict[str, Any]:
    """Return the weights of the model that a run has written."""
    return load_file(run / "model" / "model.safetensors")


def different(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Return the names of tensors that are not equal bit for bit."""
    assert one.keys() == other.keys()
    return {name for name in one if not one[name].equal(other[name])}
