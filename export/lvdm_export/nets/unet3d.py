"""The denoising UNet: unconditional, masked (prediction and infill) and text-conditioned.

Parameter names are the official ones, so checkpoints load both ways. Activations are (b·t, c, h, w)
from the first convolution to the last; only norms and temporal attention look at time.
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lvdm_export.nets.attention_block import AttentionBlock
from lvdm_export.nets.layers import ClipNorm, FoldedConv, Upsample, zero
from lvdm_export.nets.sizes import Blocks, Frames, Heads, Levels, Sides, Steps, Width
from lvdm_export.nets.transformer import VideoTransformer


@dataclass(frozen=True, kw_only=True)
class UNet3dConfig:
    """Sizes of a denoiser, in the official configuration's words.

    `in_channels` counts the mask channel of masked models; `attention_resolutions` are downsampling
    factors; `temporal_length` is the longest distance with a relative position of its own;
    `num_classes` is the number of noise level embeddings (None: no such input); `context_dim`
    selects the text model. `prediction` is what the last convolution gives: ε, as all official
    models do, or v or z_0, from which `UNet3d` makes ε with the ᾱ of its `timesteps`.
    """

    in_channels: Width = 4
    out_channels: Width = 4
    model_channels: Width = 256
    num_res_blocks: Blocks = 3
    channel_mult: Levels = (1, 2, 3, 4)
    attention_resolutions: Sides = (8, 4, 2)
    num_heads: Heads = 4
    num_head_channels: Heads = -1
    temporal_length: Frames = 4
    use_scale_shift_norm: bool = True
    num_classes: Steps | None = None
    context_dim: Width | None = None
    use_temporal_transformer: bool = False
    transformer_depth: Blocks = 1
    norm_groups: Width = 32
    prediction: Literal["eps", "v", "x0"] = "eps"
    timesteps: Steps = 1000

    def heads(self, channels: int) -> int:
        """Return the number of attention heads at a width of `channels`, which they have to share.

        Raises ValueError or ZeroDivisionError where they cannot.
        """
        heads = self.num_heads
        if self.num_head_channels != -1:
            heads = channels // self.num_head_channels
        if heads < 1 or channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        return heads


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding, cosines first, of timesteps (b) as float32 (b, dim)."""
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angle = timesteps.float()[:, None] * torch.exp(-math.log(10_000.0) * exponent)[None]
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=-1), (0, dim % 2))


class _Embedding(nn.Sequential):
    """Linear layers of the time embedding; they stay float32 in half precision networks."""

    keep_float32 = True


class _NoiseLevelEmbedding(nn.Embedding):
    keep_float32 = True


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
        signal, noise, x = alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt(), x.float()
        return (x - signal * out) / noise if self.of_data else signal * out + noise * x


class ResBlock(nn.Module):
    """Two 1×3×3 convolutions with (adaptive) group norm; the timestep enters between them."""

    def __init__(self, channels: int, out_channels: int, config: UNet3dConfig) -> None:
        super().__init__()
        self.adaptive = config.use_scale_shift_norm
        width = 2 * out_channels if self.adaptive else out_channels
        self.in_layers = nn.Sequential(
            ClipNorm(config.norm_groups, channels),
            nn.SiLU(),
            FoldedConv(channels, out_channels, 3, padding=1),
        )
        self.emb_layers = _Embedding(nn.SiLU(), nn.Linear(4 * config.model_channels, width))
        self.out_layers = nn.Sequential(
            ClipNorm(config.norm_groups, out_channels),
            nn.SiLU(),
            nn.Identity(),  # dropout in the official code; keeps the index of the convolution
            zero(FoldedConv(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else FoldedConv(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, emb: Tensor, t: int) -> Tensor:
        """Transform x (b·t, c, h, w) given the embedding emb (b, d), float32."""
        norm_in, act, conv_in = self.in_layers
        norm_out, _, _, conv_out = self.out_layers
        h = conv_in(act(norm_in(x, t)))
        step = self.emb_layers(emb)  # (b, c or 2c)
        if self.adaptive:
            scale, shift = step.chunk(2, dim=1)
            h = norm_out(h, t, scale, shift)
        else:
            c, height, width = h.shape[1:]
            h = h.reshape(-1, t, c, height, width) + step.to(h.dtype)[:, None, :, None, None]
            h = norm_out(h.reshape(-1, c, height, width), t)
        return cast("Tensor", self.skip_connection(x) + conv_out(act(h)))


class Downsample(nn.Module):
    """Halve height and width by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = FoldedConv(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b·t, c, h, w) → (b·t, c, h/2, w/2)."""
        return cast("Tensor", self.op(x))


class _Stage(nn.ModuleList):
    """Layers of one entry of `input_blocks` or `output_blocks`, each given what it needs."""

    def forward(self, x: Tensor, emb: Tensor, t: int, context: Tensor | None) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb, t)
            elif isinstance(layer, AttentionBlock):
                x = layer(x, t)
            elif isinstance(layer, VideoTransformer):
                x = layer(x, t, context)
            else:
                x = layer(x)
        return x


class UNet3d(nn.Module):
    """ε(x, timestep) with optional mask, noise level and text context (paper section 3)."""

    def __init__(self, config: UNet3dConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.model_channels
        self.time_embed = _Embedding(
            nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, 4 * dim)
        )
        if config.num_classes is not None:
            self.label_emb = _NoiseLevelEmbedding(config.num_classes, 4 * dim)
        widths = self._build_encoder(config)
        top = widths[-1]
        self.middle_block = _Stage(
            [ResBlock(top, top, config), self._attention(top), ResBlock(top, top, config)]
        )
        self._build_decoder(config, widths)
        self.out = nn.Sequential(
            ClipNorm(config.norm_groups, dim),
            nn.SiLU(),
            zero(FoldedConv(dim, config.out_channels, 3, padding=1)),
        )
        if config.prediction != "eps":
            self.velocity = Velocity(config.timesteps, of_data=config.prediction == "x0")

    def _attention(self, channels: int) -> nn.Module:
        config = self.config
        if not config.use_temporal_transformer or config.context_dim is None:
            return AttentionBlock(
                channels, config.heads(channels), config.temporal_length, config.norm_groups
            )
        return VideoTransformer(
            channels,
            config.heads(channels),
            context_dim=config.context_dim,
            depth=config.transformer_depth,
            temporal_length=config.temporal_length,
            norm_groups=config.norm_groups,
        )

    def _build_encoder(self, config: UNet3dConfig) -> list[int]:
        """Build `input_blocks`; returns the channels of every skip connection."""
        ch, factor = config.model_channels, 1
        self.input_blocks = nn.ModuleList(
            [_Stage([FoldedConv(config.in_channels, ch, 3, padding=1)])]
        )
        widths = [ch]
        for level, mult in enumerate(config.channel_mult):
            if level > 0:
                self.input_blocks.append(_Stage([Downsample(ch)]))
                widths.append(ch)
                factor *= 2
            for _ in range(config.num_res_blocks):
                stage = _Stage([ResBlock(ch, mult * config.model_channels, config)])
                ch = mult * config.model_channels
                if factor in config.attention_resolutions:
                    stage.append(self._attention(ch))
                self.input_blocks.append(stage)
                widths.append(ch)
        return widths

    def _build_decoder(self, config: UNet3dConfig, widths: list[int]) -> None:
        widths = list(widths)
        ch, factor = widths[-1], 2 ** (len(config.channel_mult) - 1)
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for i in range(config.num_res_blocks + 1):
                stage = _Stage([ResBlock(ch + widths.pop(), mult * config.model_channels, config)])
                ch = mult * config.model_channels
                if factor in config.attention_resolutions:
                    stage.append(self._attention(ch))
                if level > 0 and i == config.num_res_blocks:
                    stage.append(Upsample(FoldedConv(ch, ch, 3, padding=1)))
                    factor //= 2
                self.output_blocks.append(stage)

    def embed(self, timesteps: Tensor, noise_level: Tensor | None) -> Tensor:
        """Embed timesteps (b) and noise levels (b) as (b, 4·model_channels); −1 adds zero."""
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels))
        if noise_level is not None:
            given = (noise_level >= 0).to(emb.dtype)[:, None]
            emb = emb + self.label_emb(noise_level.clamp(min=0)) * given
        return cast("Tensor", emb)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        mask: Tensor | None = None,
        noise_level: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise in x.

        x (b, c, t, h, w) without the mask channel; timesteps int64 (b); mask (b, t), 1 = given;
        noise_level int64 (b), −1 = none; context (b, l, d). Returns float32 eps (b, c, t, h, w).
        """
        b, c, t, height, width = x.shape
        h = x.transpose(1, 2)  # (b, t, c, h, w)
        if mask is not None:
            h = torch.cat(
                [h, mask.to(x.dtype)[:, :, None, None, None].expand(b, t, 1, height, width)], dim=2
            )
            c += 1
        h = h.reshape(b * t, c, height, width).to(cast("FoldedConv", self.out[2]).weight.dtype)
        context = None if context is None else context.to(h.dtype)
        emb = self.embed(timesteps, noise_level)
        skips = []
        for stage in self.input_blocks:
            h = stage(h, emb, t, context)
            skips.append(h)
        h = self.middle_block(h, emb, t, context)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, t, context)
        norm, act, conv = self.out
        out = cast("Tensor", conv(act(norm(h, t)))).float()
        out = out.reshape(b, t, -1, height, width).transpose(1, 2)
        if self.config.prediction != "eps":
            return cast("Tensor", self.velocity(out, x, timesteps))
        return out
