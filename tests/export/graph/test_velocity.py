"""A denoiser that predicts v, through its file and its graph, is a denoiser like any other."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from toy_nets import small_unet

from lvdm_engines.manifest import TensorSpec
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import load_denoiser
from lvdm_export.config.model_json import ModelRecord, read_record, save_model
from lvdm_export.graph.graphs import DenoiserGraph, Graph
from lvdm_export.graph.onnx_file import write_onnx
from lvdm_export.nets.layers import bake, to_half


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = small_unet(prediction="v", timesteps=50)
    network.velocity.alpha_bar.copy_(torch.linspace(0.999, 0.0001, 50))
    return network


@pytest.fixture
def feeds():
    rng = np.random.default_rng(0)
    return {
        "latents": rng.standard_normal((2, 4, 4, 8, 8), np.float32),
        "timestep": np.array([0, 49]),
        "mask": np.array([[1, 0, 0, 0], [0, 0, 0, 0]], np.float32),
        "noise_level": np.array([3, -1]),
    }


def predicted(network, feeds):
    names = ("latents", "timestep", "mask", "noise_level")
    with torch.inference_mode():
        return network(*(torch.from_numpy(feeds[name]) for name in names)).numpy()


def test_the_model_file_keeps_the_table_that_turns_v_into_noise(network, feeds, tmp_path):
    save_model(tmp_path, ModelRecord(kind="unet3d", config=vars(network.config)), network)
    config = read_record(tmp_path / "model.json").network_config()
    assert config == network.config
    again = load_denoiser(config, open_checkpoint(tmp_path / "model.safetensors"), ema=False)
    np.testing.assert_array_equal(predicted(again.eval(), feeds), predicted(network, feeds))


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [
        pytest.param("fp32", 1e-4, marks=pytest.mark.slow),
        pytest.param("fp16", 1e-2, marks=pytest.mark.exhaustive),
    ],
)
def test_the_graph_gives_noise(network, feeds, tmp_path, precision, tolerance):
    expected = predicted(network, feeds)
    graph = DenoiserGraph(bake(to_half(network) if precision == "fp16" else network))
    inputs = tuple(TensorSpec(k, str(v.dtype), ("b", *v.shape[1:])) for k, v in feeds.items())
    path = tmp_path / "eps.onnx"
    write_onnx(Graph(graph, inputs, (TensorSpec("eps", "float32", ("b",)),)), path)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    eps = session.run(None, feeds)[0]
    assert np.abs(eps - expected).max() <= tolerance * np.abs(expected).max()
