"""Layers of the denoising UNet: embeddings, residual blocks, changes of resolution, v and x0.

Activations are (b·t, c, h, w); `t` is given to what may look at neighbouring frames.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lvdm_export.nets.layers import FoldedConv, zero
from lvdm_export.nets.norms import ClipNorm
from lvdm_export.nets.unet_config import UNet3dConfig

_Resample = Literal["up", "down"] | None


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding, cosines first, of timesteps (b) as float32 (b, dim)."""
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angle = timesteps.float()[:, None] * torch.exp(-math.log(10_000.0) * exponent)[None]
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=-1), (0, dim % 2))


class Embedding(nn.Sequential):
    """Linear layers of the time embedding; they stay float32 in half precision networks."""

    keep_float32 = True


class NumberEmbedding(nn.Embedding):
    """A row for every noise level, or stride; float32 as well."""

    keep_float32 = True


class Columns(nn.Module):
    """The columns of one block in what `BakedEmbedding` computes for all blocks at once."""

    def __init__(self, start: int, width: int) -> None:
        super().__init__()
        self.start, self.width = start, width

    def forward(self, steps: Tensor) -> Tensor:
        """(b, all) → (b, width)."""
        return steps[:, self.start : self.start + self.width]


class BakedEmbedding(nn.Module):
    """What all residual blocks are told, for export: tables, and one product for all blocks.

    Rows for every timestep, noise level and stride are computed once and for all; the first row of
    `levels` is that of −1, no level.
    """

    keep_float32 = True
    times: Tensor
    levels: Tensor
    strides: Tensor

    def __init__(
        self, times: Tensor, levels: Tensor | None, strides: Tensor | None, *, more: int
    ) -> None:
        """Take a row for each number, and by how many values `times` is larger than its layers."""
        super().__init__()
        self.more = more
        self.register_buffer("times", times)
        if levels is not None:
            levels = torch.cat([torch.zeros_like(levels[:1]), levels])
        self.register_buffer("levels", levels)
        self.register_buffer("strides", strides)

    def join(self, blocks: Sequence["ResBlock"]) -> None:
        """Take over the projections of all blocks, which from then on take their columns."""
        layers = [cast("Embedding", block.emb_layers) for block in blocks]
        linears = [cast("nn.Linear", linear) for _, linear in layers]
        widths = [linear.out_features for linear in linears]
        joined = nn.Linear(linears[0].in_features, sum(widths))
        joined.weight = nn.Parameter(torch.cat([one.weight.detach() for one in linears]), False)
        joined.bias = nn.Parameter(torch.cat([one.bias.detach() for one in linears]), False)
        self.project = nn.Sequential(layers[0][0], joined)
        for block, start, width in zip(blocks, accumulate([0, *widths]), widths, strict=False):
            block.emb_layers = Columns(start, width)

    def forward(
        self,
        timesteps: Tensor,
        noise_level: Tensor | None,
        stride: Tensor | None,
        text: Tensor | None = None,
    ) -> Tensor:
        """Return the projections (b, all) of timesteps, noise levels, strides (b) and `text`.

        `text` (b, 4·model_channels) is what a prompt adds to the embedding.
        """
        emb = self.times[timesteps]
        if noise_level is not None:
            emb = emb + self.levels[(noise_level + 1).clamp(min=0)]
        if stride is not None:
            emb = emb + self.strides[(stride - 1).clamp(0, len(self.strides) - 1)]
        if text is not None:
            emb = emb + text
        return cast("Tensor", self.project(emb))


class Velocity(nn.Module):
    """Turns v = sqrt(ᾱ)·ε − sqrt(1 − ᾱ)·z_0, or z_0, into ε (Salimans and Ho, arXiv 2202.00512).

    At high noise levels ε is x but for a trace of z_0, which a network that gives ε has to compute
    to many digits; one that gives v does not. ᾱ, one value per timestep, is kept with the weights.
    """

    keep_float32 = True
    alpha_bar: Tensor

    def __init__(self, timesteps: int, *, of_data: bool) -> None:
        super().__init__()
        self.of_data = of_data
        self.register_buffer("alpha_bar", torch.ones(timesteps))

    def forward(self, out: Tensor, x: Tensor, timesteps: Tensor) -> Tensor:
        """Return ε of v, or of z_0 (`of_data`), and x, (b, c, t, h, w) each, at timesteps (b)."""
        alpha_bar = self.alpha_bar[timesteps][:, None, None, None, None]
        signal, noise, x = alpha_bar.sqrt(), (-alpha_bar + 1.0).sqrt(), x.float()
        return (x - signal * out) / noise if self.of_data else signal * out + noise * x


def conv(config: UNet3dConfig, channels: int, out_channels: int, stride: int = 1) -> FoldedConv:
    """Make a convolution of 3×3 pixels and as many frames as the network's kernels span."""
    return FoldedConv(channels, out_channels, 3, stride, padding=1, kernel_t=config.kernel_size_t)


class ResBlock(nn.Module):
    """Two convolutions with (adaptive) group norm; the timestep enters between them.

    With `resample`, the first is preceded by halving (averages) or doubling (repeats) the sides.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        config: UNet3dConfig,
        resample: _Resample = None,
    ) -> None:
        super().__init__()
        self.adaptive, self.resample = config.use_scale_shift_norm, resample
        width = 2 * out_channels if self.adaptive else out_channels
        self.in_layers = nn.Sequential(
            ClipNorm(config.norm_groups, channels),
            config.activation(),
            conv(config, channels, out_channels),
        )
        self.emb_layers: nn.Module = Embedding(
            config.activation(), nn.Linear(4 * config.model_channels, width)
        )
        self.out_layers = nn.Sequential(
            ClipNorm(config.norm_groups, out_channels),
            config.activation(),
            nn.Identity(),  # dropout in the official code; keeps the index of the convolution
            zero(conv(config, out_channels, out_channels)),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else FoldedConv(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, emb: Tensor, t: int) -> Tensor:
        """Transform x (b·t, c, h, w) given the embedding emb (b, d), float32."""
        norm_in, act, conv_in = self.in_layers
        norm_out, _, _, conv_out = self.out_layers
        h = _resampled(act(norm_in(x, t)), self.resample)
        h, x = conv_in(h, t), _resampled(x, self.resample)
        step = self.emb_layers(emb)  # (b, c or 2c)
        if self.adaptive:
            scale, shift = step.chunk(2, dim=1)
            h = norm_out(h, t, scale, shift)
        else:
            c, height, width = h.shape[1:]
            h = h.reshape(-1, t, c, height, width) + step.to(h.dtype)[:, None, :, None, None]
            h = norm_out(h.reshape(-1, c, height, width), t)
        return cast("Tensor", self.skip_connection(x) + conv_out(act(h), t))


def _resampled(x: Tensor, resample: _Resample) -> Tensor:
    if resample == "up":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.avg_pool2d(x, 2) if resample == "down" else x


class Downsample(nn.Module):
    """Halve height and width: by a strided convolution, or by averages (no `conv_resample`)."""

    def __init__(self, channels: int, config: UNet3dConfig) -> None:
        super().__init__()
        if config.conv_resample:
            self.op = conv(config, channels, channels, stride=2)

    def forward(self, x: Tensor, t: int) -> Tensor:
        """(b·t, c, h, w) → (b·t, c, h/2, w/2)."""
        return cast("Tensor", self.op(x, t)) if hasattr(self, "op") else _resampled(x, "down")


class ClipUpsample(nn.Module):
    """Double height and width: nearest neighbour, then (`conv_resample`) a convolution."""

    def __init__(self, channels: int, config: UNet3dConfig) -> None:
        super().__init__()
        if config.conv_resample:
            self.conv = conv(config, channels, channels)

    def forward(self, x: Tensor, t: int) -> Tensor:
        """(b·t, c, h, w) → (b·t, c, 2h, 2w)."""
        x = _resampled(x, "up")
        return cast("Tensor", self.conv(x, t)) if hasattr(self, "conv") else x
