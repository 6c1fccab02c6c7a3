"""Exported graphs in ONNX Runtime against recorded outputs of the authors' code.

Tolerances are relative to the output's largest magnitude: 1e-4 in single precision (order of
summation), 1e-2 in half precision (weights and activations of 11 bits).
"""

import numpy as np
import onnxruntime as ort
import pytest
from torch import nn

from lvdm_engines.manifest import TensorSpec
from lvdm_export.graph.graphs import Graph
from lvdm_export.graph.onnx_file import write_onnx

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
# An export takes 10 to 60 s: one of each kind of network is tested more often than the others.
OFTEN = {("unet_interp", "fp16"), ("ae3d_488", "fp32"), ("ae2d", "fp32")}
UNETS, AUTOENCODERS = (
    [
        pytest.param(name, precision, marks=getattr(pytest.mark, "slow" if often else "exhaustive"))
        for name in names
        for precision in TOLERANCE
        for often in [(name, precision) in OFTEN]
    ]
    for names in (
        ("unet_short", "unet_pred", "unet_interp", "unet_t2v"),
        ("ae3d_488", "ae3d_244", "ae2d"),
    )
)


class Method(nn.Module):
    """One method of a network as a module."""

    def __init__(self, network, name):
        super().__init__()
        self.network, self.name = network, name

    def forward(self, x):
        return getattr(self.network, self.name)(x)


def export(module, feeds, path):
    inputs = tuple(TensorSpec(k, str(v.dtype), ("b", *v.shape[1:])) for k, v in feeds.items())
    write_onnx(Graph(module, inputs, (TensorSpec("out", "float32", ("b",)),)), path)
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def error(session, feeds, expected):
    """Return the relative error of the whole batch, and check that batches of 1 and 3 run too."""
    actual = session.run(None, feeds)[0]
    for rows in ([0], [0, 0, 0]):
        alone = session.run(None, {k: v[rows] for k, v in feeds.items()})[0]
        # half precision differs by up to 1.2e-3 on processors with AVX-512
        assert np.abs(alone - actual[rows]).max() <= 2e-3 * np.abs(actual).max()
        assert all(np.array_equal(row, alone[0]) for row in alone)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("name", "precision"), UNETS)
def test_denoiser_in_onnx_runtime_reproduces_the_official_noise_prediction(
    golden, exported_denoiser, name, precision
):
    exported = exported_denoiser(name, precision)
    arrays, feeds = golden(name).arrays, exported.feeds
    session = ort.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    if "mask" in feeds:
        assert error(session, feeds, arrays["eps_s"]) < TOLERANCE[precision]
        feeds = {**feeds, "noise_level": np.array([-1, -1])}
    assert error(session, feeds, arrays["eps"]) < TOLERANCE[precision]


@pytest.mark.parametrize(("name", "precision"), AUTOENCODERS)
def test_autoencoder_in_onnx_runtime_reproduces_the_official_moments_and_frames(
    golden, golden_autoencoder, name, precision, tmp_path
):
    arrays, network = golden(name).arrays, golden_autoencoder(name, precision)
    encode = {"x": arrays["x"]}
    session = export(Method(network, "encode"), encode, tmp_path / "encode.onnx")
    assert error(session, encode, arrays["moments"]) < TOLERANCE[precision]
    decode = {"x": arrays.get("z", arrays["moments"][:, :4])}
    session = export(Method(network, "decode"), decode, tmp_path / "decode.onnx")
    assert error(session, decode, arrays["decoded"]) < TOLERANCE[precision]
