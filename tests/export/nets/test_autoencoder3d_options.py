"""Norms and padding of the 3D autoencoder that no released model uses, against plain torch."""

import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from torch.nn import functional as F  # noqa: N812
from toy_checkpoints import AUTOENCODER, filled, official_yaml

from lvdm_engines.manifest import LatentFacts, TensorSpec
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import load_autoencoder
from lvdm_export.config.yaml_config import parse_config
from lvdm_export.graph.graphs import EncoderGraph, Graph
from lvdm_export.graph.onnx_file import write_onnx
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.layers import bake, to_half

CHOICES = [("batch", "replicate"), ("group", "reflect"), ("batch", "constant")]


class Plain:
    """The authors' 3D autoencoder with one level, by the definition of its layers."""

    def __init__(self, config, state):
        self.config, self.state = config, state

    def conv(self, name, x, pads=(1, 1), stride=1, mode="replicate"):
        x = F.pad(x, pads * 3, mode=mode)
        weight, bias = self.state[f"{name}.conv.weight"], self.state[f"{name}.conv.bias"]
        return F.conv3d(x, weight, bias, stride)

    def norm(self, name, x):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        if self.config.norm_type == "group":
            return F.silu(F.group_norm(x, self.config.norm_groups, weight, bias, 1e-6))
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        return F.silu(F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5))

    def block(self, name, x):
        h = self.conv(f"{name}.conv1", self.norm(f"{name}.norm1", x))
        return x + self.conv(f"{name}.conv2", self.norm(f"{name}.norm2", h))

    def encode(self, x):
        mode = self.config.padding_type
        x = self.conv("encoder.conv_first", x, mode=mode)
        x = self.conv("encoder.conv_blocks.0.down", x, stride=2, mode=mode)
        x = self.norm("encoder.final_block.0", self.block("encoder.conv_blocks.0.res", x))
        return self.conv("quant_conv", self.conv("encoder.final_block.2", x, mode=mode), (0, 0))

    def decode(self, z):
        z = F.pad(self.conv("post_quant_conv", z, (0, 0)), (1, 1) * 3, mode="replicate")
        up = "decoder.conv_blocks.0"
        weight, bias = self.state[f"{up}.up.convt.weight"], self.state[f"{up}.up.convt.bias"]
        x = F.conv_transpose3d(z, weight, bias, stride=2, padding=3)
        return self.conv("decoder.conv_out", self.block(f"{up}.res2", self.block(f"{up}.res1", x)))


def trained(norm, padding):
    """An autoencoder with weights, and with statistics of batches where it keeps any."""
    config = dataclasses.replace(AUTOENCODER, norm_type=norm, padding_type=padding)
    network = filled(Autoencoder3d(config), 3)
    generator = torch.Generator().manual_seed(4)
    for name, buffer in network.named_buffers():
        numbers = torch.rand(buffer.shape, generator=generator)
        buffer.copy_(numbers + 0.5 if name.endswith("var") else numbers)
    return network


def worst(found, expected):
    largest = abs(expected).max()
    assert largest > 0.05
    return abs(found - expected).max() / largest


@pytest.mark.parametrize(("norm", "padding"), CHOICES)
def test_the_autoencoder_is_the_plain_one(norm, padding):
    network = trained(norm, padding)
    plain = Plain(network.config, network.state_dict())
    frames = torch.rand(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.no_grad():
        moments = network.encode(frames)
        assert worst(moments, plain.encode(frames)) < 1e-5
        z = moments.chunk(2, 1)[0]
        assert worst(network.decode(z), plain.decode(z)) < 1e-5


def test_config_and_checkpoint_of_the_authors_give_the_network(tmp_path):
    network = trained("batch", "reflect")
    raw = official_yaml()
    parts = raw["model"]["params"]["first_stage_config"]["params"]["ddconfig"]
    for half in ("encoder", "decoder"):
        parts[half]["params"]["norm_type"] = "batch"
    parts["encoder"]["params"]["padding_type"] = "reflect"
    read = yaml.safe_load(yaml.safe_dump(raw))
    record = parse_config(read, tmp_path / "sky.yaml").autoencoder
    config = Autoencoder3dConfig(**record.config)
    assert config == network.config
    counted = {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
        for key in network.state_dict()
        if key.endswith("running_mean")
    }
    torch.save({"state_dict": {**network.state_dict(), **counted}}, tmp_path / "ae.ckpt")
    loaded = load_autoencoder(config, open_checkpoint(tmp_path / "ae.ckpt")).state_dict()
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 1e-2)])
@pytest.mark.parametrize(("norm", "padding"), [("batch", "reflect"), ("group", "constant")])
def test_its_graph_gives_what_torch_gives(norm, padding, precision, tolerance, tmp_path):
    network = trained(norm, padding)
    levels = np.random.default_rng(5).integers(0, 256, (2, 4, 8, 8, 3), np.uint8)
    latent = LatentFacts(channels=2, size=(4, 4), scale=1.5, shift=0.25)
    with torch.no_grad():
        expected = EncoderGraph(network, latent)(torch.from_numpy(levels)).numpy()
    baked = bake(to_half(network) if precision == "fp16" else network)
    inputs = (TensorSpec("frames", "uint8", ("b", 4, 8, 8, 3)),)
    outputs = (TensorSpec("latents", "float32", ("b", 2, 2, 4, 4)),)
    path = tmp_path / "encoder.onnx"
    write_onnx(Graph(EncoderGraph(baked, latent), inputs, outputs), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"frames": levels})
    assert worst(found, expected) < tolerance
