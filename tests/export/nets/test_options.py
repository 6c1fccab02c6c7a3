"""Options of the authors' networks that no released model uses, against plain torch.

Each network here is written as one function of a state dict under the official names, in 5-D layout
and without any of our layers.
"""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from toy_checkpoints import filled

from lvdm_export.nets.autoencoder2d import Autoencoder2d, Autoencoder2dConfig
from lvdm_export.nets.transformer import VideoTransformer
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig

UNET = UNet3dConfig(
    in_channels=3,
    out_channels=2,
    model_channels=8,
    num_res_blocks=1,
    channel_mult=(1, 2),
    attention_resolutions=(2,),
    num_heads=2,
    temporal_length=4,
    norm_groups=4,
)


class Plain:
    """The authors' UNet by the definition of its layers."""

    def __init__(self, config: UNet3dConfig, state: dict[str, torch.Tensor]) -> None:
        self.config, self.state = config, state
        leaky = config.nonlinearity_type == "leaky_relu"
        self.act = F.leaky_relu if leaky else F.silu

    def conv(self, name, x, stride=1, pad=1):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        padding = (weight.shape[2] // 2, pad, pad)
        return F.conv3d(x, weight, bias, stride=(1, stride, stride), padding=padding)

    def norm(self, name, x):
        state, groups = self.state, self.config.norm_groups
        return F.group_norm(x, groups, state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(self, name, x):
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def doubled(self, x):
        return x.repeat_interleave(2, 3).repeat_interleave(2, 4)

    def block(self, name, x, emb, resize=lambda x: x):
        h = resize(self.act(self.norm(f"{name}.in_layers.0", x)))
        h, x = self.conv(f"{name}.in_layers.2", h), resize(x)
        step = self.linear(f"{name}.emb_layers.1", self.act(emb))[:, :, None, None, None]
        scale, shift = step.chunk(2, 1)
        h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        if f"{name}.skip_connection.weight" in self.state:
            x = self.conv(f"{name}.skip_connection", x, pad=0)
        return x + self.conv(f"{name}.out_layers.3", self.act(h))

    def attended(self, name, x, kind):
        """Attend over the last axis of x (n, c, length)."""
        n, c, length = x.shape
        y = self.norm(f"{name}.norm_{kind}", x)
        y = F.conv1d(
            y, self.state[f"{name}.qkv_{kind}.weight"], self.state[f"{name}.qkv_{kind}.bias"]
        )
        heads = self.config.num_heads
        q, k, v = y.reshape(n, 3, heads, c // heads, length).unbind(1)
        scores = torch.einsum("nhct,nhcs->nhts", q, k) / math.sqrt(c // heads)
        y = torch.einsum("nhts,nhcs->nhct", scores.softmax(-1), v).reshape(n, c, length)
        out = f"{name}.proj_out_{kind}"
        return x + F.conv1d(y, self.state[f"{out}.weight"], self.state[f"{out}.bias"])

    def attention(self, name, x):
        b, c, t, h, w = x.shape
        x = self.attended(name, x.transpose(1, 2).reshape(b * t, c, h * w), "s")
        x = x.reshape(b, t, c, h * w).permute(0, 3, 2, 1).reshape(b * h * w, c, t)
        x = self.attended(name, x, "t").reshape(b, h, w, c, t)
        return x.permute(0, 3, 4, 1, 2)

    def halve(self, name, x, emb):
        pooled = lambda x: F.avg_pool3d(x, (1, 2, 2))  # noqa: E731
        if self.config.resblock_updown:
            return self.block(name, x, emb, pooled)
        return self.conv(f"{name}.op", x, 2) if self.config.conv_resample else pooled(x)

    def double(self, name, x, emb):
        if self.config.resblock_updown:
            return self.block(name, x, emb, self.doubled)
        x = self.doubled(x)
        return self.conv(f"{name}.conv", x) if self.config.conv_resample else x

    def __call__(self, x, timesteps, mask):
        angles = timesteps[:, None] * 10_000.0 ** (-torch.arange(4) / 4)
        emb = torch.cat([angles.cos(), angles.sin()], 1)
        emb = self.linear("time_embed.2", self.act(self.linear("time_embed.0", emb)))
        spread = mask[:, None, :, None, None].expand_as(x[:, :1])
        skips = [self.conv("input_blocks.0.0", torch.cat([x, spread], 1))]
        skips.append(self.block("input_blocks.1.0", skips[-1], emb))
        skips.append(self.halve("input_blocks.2.0", skips[-1], emb))
        h = self.block("input_blocks.3.0", skips[-1], emb)
        skips.append(self.attention("input_blocks.3.1", h))
        h = self.block("middle_block.0", skips[-1], emb)
        h = self.block("middle_block.2", self.attention("middle_block.1", h), emb)
        for stage in range(4):
            h = self.block(f"output_blocks.{stage}.0", torch.cat([h, skips.pop()], 1), emb)
            if stage < 2:
                h = self.attention(f"output_blocks.{stage}.1", h)
            if stage == 1:
                h = self.double("output_blocks.1.2", h, emb)
        return self.conv("out.2", self.act(self.norm("out.0", h)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"conv_resample": False},
        {"resblock_updown": True},
        {"kernel_size_t": 3},
        {"nonlinearity_type": "leaky_relu"},
        {"kernel_size_t": 3, "resblock_updown": True, "nonlinearity_type": "leaky_relu"},
    ],
    ids=str,
)
def test_the_denoiser_without_relative_positions_is_the_plain_one(options):
    config = dataclasses.replace(UNET, use_relative_position=False, **options)
    network = filled(UNet3d(config), 1).eval()
    x, timesteps, mask = torch.randn(2, 2, 4, 8, 8), torch.tensor([3, 700]), torch.eye(2, 4)
    with torch.no_grad():
        expected = Plain(config, network.state_dict())(x, timesteps, mask)
        eps = network(x, timesteps, mask)
    assert expected.abs().max() > 0.1
    assert (eps - expected).abs().max() < 1e-5 * expected.abs().max()


def test_text_transformers_without_relative_positions_do_not_know_the_order_of_frames():
    config = dataclasses.replace(
        UNET,
        in_channels=2,
        context_dim=6,
        use_temporal_transformer=True,
        use_relative_position=False,
    )
    network = filled(UNet3d(config), 1).eval()
    x, text = torch.randn(1, 2, 4, 8, 8), torch.randn(1, 3, 6)
    with torch.no_grad():
        eps, mirrored = (network(v, torch.tensor([3]), context=text) for v in (x, x.flip(2)))
    assert (eps.flip(2) - mirrored).abs().max() < 1e-5 * eps.abs().max()
    assert not any("relative" in name for name in network.state_dict())


AE = Autoencoder2dConfig(
    ch=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(16,), resolution=16, norm_groups=4
)


def plain_attention(state, name, x, kind):
    n, c, h, w = x.shape
    if kind == "none":
        return x
    if kind == "linear":
        q, k, v = F.conv2d(x, state[f"{name}.to_qkv.weight"]).reshape(n, 3, c, h * w).unbind(1)
        context = torch.einsum("ndp,nep->nde", k.softmax(-1), v)
        y = torch.einsum("nde,ndp->nep", context, q).reshape(n, c, h, w)
        return F.conv2d(y, state[f"{name}.to_out.weight"], state[f"{name}.to_out.bias"])

    def project(part, x):
        return F.conv2d(x, state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"])

    y = F.group_norm(x, 4, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"], 1e-6)
    q, k, v = (project(part, y).reshape(n, c, h * w) for part in "qkv")
    weights = (torch.einsum("ncp,ncs->nps", q, k) / math.sqrt(c)).softmax(-1)
    return x + project("proj_out", torch.einsum("nps,ncs->ncp", weights, v).reshape(n, c, h, w))


def plain_decoder(config, state, z):
    def conv(name, x, pad=1):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=pad)

    def norm(name, x):
        return F.silu(F.group_norm(x, 4, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6))

    def block(name, x):
        h = conv(f"{name}.conv1", norm(f"{name}.norm1", x))
        h = conv(f"{name}.conv2", norm(f"{name}.norm2", h))
        shortcut = f"{name}.nin_shortcut"
        return h + (conv(shortcut, x, 0) if f"{shortcut}.weight" in state else x)

    x = conv("decoder.conv_in", conv("post_quant_conv", z, 0))
    x = block("decoder.mid.block_1", x)
    x = plain_attention(state, "decoder.mid.attn_1", x, config.attn_type)
    x = block("decoder.mid.block_2", x)
    for i in (0, 1):
        x = block(f"decoder.up.1.block.{i}", x)
    x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = conv("decoder.up.1.upsample.conv", x) if config.resamp_with_conv else x
    for i in (0, 1):
        x = block(f"decoder.up.0.block.{i}", x)
        x = plain_attention(state, f"decoder.up.0.attn.{i}", x, config.attn_type)
    x = conv("decoder.conv_out", norm("decoder.norm_out", x))
    return x.tanh() if config.tanh_out else x


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attn_type": "linear"},
        {"attn_type": "none"},
        {"resamp_with_conv": False},
        {"tanh_out": True},
    ],
    ids=str,
)
def test_the_two_dimensional_decoder_is_the_plain_one(options):
    config = dataclasses.replace(AE, **options)
    network = filled(Autoencoder2d(config), 1).eval()
    z = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        expected, x = plain_decoder(config, network.state_dict(), z), network.decode(z)
    assert (x - expected).abs().max() < 1e-5 * expected.abs().max()


def test_an_encoder_without_convolutions_between_levels_averages():
    config = dataclasses.replace(AE, resamp_with_conv=False)
    network = filled(Autoencoder2d(config), 1).eval()
    assert not any("sample" in name for name in network.state_dict())
    x = torch.randn(1, 8, 16, 16)
    halved = network.encoder.down[0].downsample(x)
    assert torch.allclose(halved, x.reshape(1, 8, 8, 2, 8, 2).mean((3, 5)), atol=1e-6)


def test_text_is_read_at_the_resolutions_that_are_named_and_in_the_middle():
    told = dataclasses.replace(
        UNET, attention_resolutions=(1, 2), use_temporal_transformer=True, context_dim=6
    )
    every, some = (
        UNet3d(dataclasses.replace(told, text_resolutions=some)) for some in (None, (2,))
    )

    def readers(network):
        modules = network.named_modules()
        return {name for name, module in modules if isinstance(module, VideoTransformer)}

    assert readers(every) == {
        *(f"input_blocks.{i}.1" for i in (1, 3)),
        "middle_block.1",
        *(f"output_blocks.{i}.1" for i in range(4)),
    }
    assert readers(every) - readers(some) == {
        "input_blocks.1.1",
        "output_blocks.2.1",
        "output_blocks.3.1",
    }
    x, context = torch.randn(1, 2, 4, 8, 8), torch.randn(1, 3, 6)
    mask = torch.zeros(1, 4)
    assert some.eval()(x, torch.tensor([3]), mask, context=context).shape == x.shape


def test_text_resolutions_without_attention_are_refused():
    with pytest.raises(ValueError, match=r"text_resolutions is \[4\], expected some of"):
        dataclasses.replace(UNET, text_resolutions=(4,))
