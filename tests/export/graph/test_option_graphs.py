"""Graphs of networks with the options that no released model uses, in ONNX Runtime."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn
from toy_checkpoints import filled

from lvdm_engines.errors import ExportError
from lvdm_engines.manifest import LatentFacts, TensorSpec
from lvdm_export.graph.graphs import DecoderGraph, DenoiserGraph, Graph
from lvdm_export.graph.onnx_file import write_onnx
from lvdm_export.nets.autoencoder2d import Autoencoder2d, Autoencoder2dConfig
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.layers import bake
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig

pytestmark = pytest.mark.slow

UNET = UNet3dConfig(
    in_channels=3,
    out_channels=2,
    model_channels=8,
    num_res_blocks=1,
    channel_mult=(1, 2),
    attention_resolutions=(2,),
    num_heads=2,
    norm_groups=4,
    use_relative_position=False,
    resblock_updown=True,
    kernel_size_t=3,
    nonlinearity_type="leaky_relu",
    prediction="x0",
    timesteps=50,
)
AE = Autoencoder2dConfig(
    ch=8,
    ch_mult=(1, 2),
    num_res_blocks=1,
    norm_groups=4,
    attn_type="linear",
    resamp_with_conv=False,
    tanh_out=True,
)


def run(module, feeds, outputs, path):
    """Return what a module gives, and what its graph gives."""
    inputs = tuple(TensorSpec(k, str(v.dtype), ("b", *v.shape[1:])) for k, v in feeds.items())
    with torch.inference_mode():
        expected = module(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    write_onnx(Graph(bake(module), inputs, outputs), path)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    first = expected[0] if isinstance(expected, tuple) else expected
    return session.run(None, feeds)[0], first.numpy()


@pytest.mark.exhaustive
def test_a_denoiser_with_every_option_becomes_a_graph(tmp_path):
    network = filled(UNet3d(UNET), 1).eval()
    network.velocity.alpha_bar.copy_(torch.linspace(0.999, 2.0**-24, 50))
    feeds = {
        "latents": np.random.default_rng(0).standard_normal((2, 2, 4, 8, 8), np.float32),
        "timestep": np.array([5, 49]),
        "mask": np.eye(2, 4, dtype=np.float32),
    }
    outputs = (TensorSpec("eps", "float32", ("b",)),)
    found, expected = run(DenoiserGraph(network), feeds, outputs, tmp_path / "eps.onnx")
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_decoder_of_patches_becomes_a_graph(tmp_path):
    config = Autoencoder3dConfig(
        n_hiddens=4, downsample=(2, 4, 4), embed_dim=2, z_channels=2, norm_groups=2, patch=2
    )
    network = filled(Autoencoder3d(config), 2).eval()
    feeds = {"latents": np.random.default_rng(0).standard_normal((2, 2, 3, 4, 4), np.float32)}
    graph = DecoderGraph(network, LatentFacts(2, (4, 4), 0.5, 0.1))
    outputs = (TensorSpec("frames", "uint8", ("b",)), TensorSpec("mean", "float32", ("b",)))
    found, expected = run(graph, feeds, outputs, tmp_path / "frames.onnx")
    assert found.shape == (2, 6, 16, 16, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_two_dimensional_decoder_with_every_option_becomes_a_graph(tmp_path):
    decoder = DecoderGraph(
        filled(Autoencoder2d(AE), 1).eval(), LatentFacts(channels=4, size=(8, 8), scale=1, shift=0)
    )
    latents = np.random.default_rng(0).standard_normal((2, 4, 3, 8, 8), np.float32)
    outputs = (TensorSpec("frames", "uint8", ("b",)), TensorSpec("mean", "float32", ("b",)))
    found, expected = run(decoder, {"latents": latents}, outputs, tmp_path / "decoder.onnx")
    assert found.shape == (2, 3, 16, 16, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1  # halfway between two levels


class Failing(nn.Module):
    """What torch can trace, but for an error of its own."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        if self.error is None:
            return x.clone().add_(1)  # in place, which no operator of ONNX is
        raise self.error


@pytest.mark.parametrize("error", [ValueError("odd"), KeyError("odd"), AssertionError("odd"), None])
def test_what_cannot_be_exported_is_one_error_and_leaves_no_file(tmp_path, error):
    specs = (TensorSpec("x", "float32", ("b", 3)), TensorSpec("y", "float32", ("b", 3)))
    graph = Graph(Failing(error), specs[:1], specs[1:])
    with pytest.raises(ExportError, match=r"^odd cannot be exported: "):
        write_onnx(graph, tmp_path / "odd.onnx")
    assert list(tmp_path.iterdir()) == []
