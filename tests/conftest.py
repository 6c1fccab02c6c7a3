"""Fixtures shared by all tests: recorded outputs of the authors' code and their weights."""

import gc
import json
import signal
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True, scope="session")
def _state(tmp_path_factory):
    # what tests build is not remembered as built by whoever runs them, nor kept for them
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        # matplotlib looks for fonts once, not in every command that draws
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    # A shell starts what it runs in the background with interrupts ignored, and Python keeps that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _rarely_collected():
    # an export makes millions of objects that stay, among which to look for garbage is a quarter
    # of its time
    gc.set_threshold(50_000, 50, 50)


def rule_weight(source_key, shape):
    """Make a weight tensor from its name; golden/ was recorded on weights made this way."""
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(source_key.encode())))
    n = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) >= 2:
        return n * np.float32(0.8 / np.sqrt(np.prod(shape[1:])))
    return (
        np.float32(1) + np.float32(0.1) * n
        if source_key.endswith("weight")
        else np.float32(0.1) * n
    )


def weights_of(rows):
    """Make all weights of one network from rows of [key, shape, source key]."""
    return {key: rule_weight(source, shape) for key, shape, source in rows}


@dataclass(frozen=True)
class GoldenCase:
    """One recorded case: the official configuration, the weights and the recorded arrays."""

    config: dict[str, Any]
    weights: dict[str, Any]  # key → array; for whole runs network name → (key → array)
    arrays: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def golden():
    """Load a case of tests/golden by name."""

    def load(name):
        with np.load(GOLDEN / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        config = json.loads(str(arrays.pop("config")))
        rows = json.loads(str(arrays.pop("weights"))) if "weights" in arrays else []
        if isinstance(rows, dict):
            weights = {network: weights_of(r) for network, r in rows.items()}
        else:
            weights = weights_of(rows)
        return GoldenCase(config, weights, arrays)

    return load


@dataclass(frozen=True)
class ExportedCase:
    """A golden network as the graph of a bundle: what was exported, where to, and its feeds."""

    graph: Any
    path: Path
    feeds: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def exported_denoiser(golden, tmp_path_factory):
    """Export a golden denoiser in a precision, once for all tests: it takes about 15 s each."""
    from lvdm_engines.manifest import TensorSpec
    from lvdm_export.config.mapping import StrictMapping
    from lvdm_export.config.networks import read_unet
    from lvdm_export.graph.graphs import DenoiserGraph, Graph
    from lvdm_export.graph.onnx_file import write_onnx
    from lvdm_export.nets.unet3d import UNet3d

    folder = tmp_path_factory.mktemp("golden")

    @cache
    def export(name, precision):
        case = golden(name)
        params = {key: value for key, value in case.config.items() if key != "kind"}
        params.setdefault("use_temporal_transformer", False)
        network = loaded(UNet3d(read_unet(StrictMapping(params, name))), case, precision)
        arrays = case.arrays
        masked = "mask" in arrays
        feeds = {"latents": arrays["x"][:, :-1] if masked else arrays["x"], "timestep": arrays["t"]}
        if masked:
            feeds |= {"mask": arrays["mask"], "noise_level": arrays["s"]}
        if "context" in arrays:
            feeds["context"] = arrays["context"]
        inputs = tuple(TensorSpec(k, str(v.dtype), ("b", *v.shape[1:])) for k, v in feeds.items())
        outputs = (TensorSpec("eps", "float32", ("b", *arrays["eps"].shape[1:])),)
        graph = Graph(DenoiserGraph(network), inputs, outputs)
        path = folder / f"{name}-{precision}.onnx"
        write_onnx(graph, path)
        return ExportedCase(graph, path, feeds)

    return export


@pytest.fixture(scope="session")
def golden_autoencoder(golden):
    """Make the autoencoder of a case with its weights, baked and in a precision."""
    from lvdm_export.config.mapping import StrictMapping
    from lvdm_export.config.networks import read_autoencoder2d
    from lvdm_export.nets.autoencoder2d import Autoencoder2d
    from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig

    def make(name, precision):
        case = golden(name)
        config = {k: v for k, v in case.config.items() if k not in {"kind", "double_z"}}
        if case.config["kind"] == "ae2d":
            width = config.pop("embed_dim")
            network: Any = Autoencoder2d(read_autoencoder2d(StrictMapping(config, name), width))
        else:
            fields = {key: config[key] for key in ("n_hiddens", "z_channels", "embed_dim")}
            made = Autoencoder3dConfig(downsample=tuple(config["downsample"]), **fields)
            network = Autoencoder3d(made)
        return loaded(network, case, precision)

    return make


def loaded(network, case, precision):
    """Return the network with the weights of a case, baked and in a precision."""
    import torch

    from lvdm_export.nets.layers import bake, to_half

    network.load_state_dict({key: torch.from_numpy(a) for key, a in case.weights.items()})
    return bake(to_half(network) if precision == "fp16" else network).eval()
