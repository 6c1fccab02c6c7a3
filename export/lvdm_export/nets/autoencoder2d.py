"""The 2D KL autoencoder of the text-to-video model (Stable Diffusion's), run frame by frame."""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lvdm_export.nets.attention import attend
from lvdm_export.nets.layers import Upsample
from lvdm_export.nets.norms import GroupNorm
from lvdm_export.nets.sizes import Blocks, Levels, Sides, Width


@dataclass(frozen=True, kw_only=True)
class Autoencoder2dConfig:
    """Sizes of a 2D autoencoder; `attn_resolutions` are side lengths counted from `resolution`.

    Without `resamp_with_conv` sides are halved by averages and doubled by repeats alone.
    """

    ch: Width = 128
    ch_mult: Levels = (1, 2, 4, 4)
    num_res_blocks: Blocks = 2
    attn_resolutions: Sides = ()
    resolution: Width = 256
    in_channels: Width = 3
    out_ch: Width = 3
    z_channels: Width = 4
    embed_dim: Width = 4
    norm_groups: Width = 32
    attn_type: Literal["vanilla", "linear", "none"] = "vanilla"
    resamp_with_conv: bool = True
    tanh_out: bool = False

    @property
    def downsample(self) -> tuple[int, int, int]:
        """Frames, rows and columns per latent."""
        side = 2 ** (len(self.ch_mult) - 1)
        return 1, side, side


class ResBlock(nn.Module):
    """Two 3×3 convolutions with group norm."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps=1e-6)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(groups, out_channels, eps=1e-6)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c', h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return cast("Tensor", h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x))


class AttentionBlock(nn.Module):
    """Single-head attention over all pixels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) → same."""
        h = self.norm(x)
        q, k, v = (
            layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v)
        )
        h = attend(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return cast("Tensor", x + self.proj_out(h))


class LinearAttention(nn.Module):
    """Attention whose cost is linear in pixels: keys are normalised over all of them first.

    It replaces its input, with neither norm nor residual (Shen et al., arXiv 1812.01243).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.to_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) → same."""
        q, k, v = self.to_qkv(x).flatten(2).chunk(3, dim=1)  # (n, c, pixels)
        summary = k.float().softmax(-1).to(v.dtype) @ v.transpose(1, 2)  # (n, c of k, c of v)
        return cast("Tensor", self.to_out((summary.transpose(1, 2) @ q).reshape(x.shape)))


def _attention(channels: int, config: Autoencoder2dConfig) -> nn.Module:
    if config.attn_type == "none":
        return nn.Identity()
    if config.attn_type == "linear":
        return LinearAttention(channels)
    return AttentionBlock(channels, config.norm_groups)


class Downsample(nn.Module):
    """Strided convolution, zero-padded on the right and bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c, h/2, w/2)."""
        return cast("Tensor", self.conv(F.pad(x, (0, 1, 0, 1))))


def _resample(channels: int, way: str, config: Autoencoder2dConfig) -> nn.Module:
    if not config.resamp_with_conv:
        return nn.AvgPool2d(2) if way == "down" else Upsample(nn.Identity())
    if way == "down":
        return Downsample(channels)
    return Upsample(nn.Conv2d(channels, channels, 3, padding=1))


class Level(nn.Module):
    """Residual blocks (and attention) of one resolution, then the resampling layer if any."""

    def __init__(
        self,
        widths: list[tuple[int, int]],
        config: Autoencoder2dConfig,
        *,
        attention: bool,
        resample: str | None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(a, b, config.norm_groups) for a, b in widths)
        self.attn = nn.ModuleList(_attention(b, config) for _, b in widths if attention)
        if resample == "down":
            self.downsample = _resample(widths[-1][1], resample, config)
        elif resample == "up":
            self.upsample = _resample(widths[-1][1], resample, config)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c', h', w')."""
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn) > 0:
                x = self.attn[i](x)
        if hasattr(self, "downsample"):
            return cast("Tensor", self.downsample(x))
        return cast("Tensor", self.upsample(x)) if hasattr(self, "upsample") else x


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, config: Autoencoder2dConfig) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, config.norm_groups)
        self.attn_1 = _attention(channels, config)
        self.block_2 = ResBlock(channels, channels, config.norm_groups)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) → same."""
        return cast("Tensor", self.block_2(self.attn_1(self.block_1(x))))


class Encoder(nn.Module):
    """Images to features at the latent resolution."""

    def __init__(self, config: Autoencoder2dConfig) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        width, side, last = config.ch, config.resolution, len(config.ch_mult) - 1
        for i, mult in enumerate(config.ch_mult):
            out = config.ch * mult
            widths = [(width, out)] + [(out, out)] * (config.num_res_blocks - 1)
            attention = side in config.attn_resolutions
            resample = "down" if i < last else None
            self.down.append(Level(widths, config, attention=attention, resample=resample))
            width, side = out, side // 2
        self.mid = Middle(width, config)
        self.norm_out = GroupNorm(config.norm_groups, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) → (n, 2·z_channels, h', w')."""
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return cast("Tensor", self.conv_out(F.silu(self.norm_out(self.mid(h)))))


class Decoder(nn.Module):
    """Latents to images; `up` is indexed by resolution, finest first, as in the official code."""

    def __init__(self, config: Autoencoder2dConfig) -> None:
        super().__init__()
        last = len(config.ch_mult) - 1
        width, side = config.ch * config.ch_mult[-1], config.resolution // 2**last
        self.conv_in = nn.Conv2d(config.z_channels, width, 3, padding=1)
        self.mid = Middle(width, config)
        levels: list[nn.Module] = []
        for i in reversed(range(last + 1)):
            out = config.ch * config.ch_mult[i]
            widths = [(width, out)] + [(out, out)] * config.num_res_blocks
            attention = side in config.attn_resolutions
            resample = "up" if i > 0 else None
            levels.insert(0, Level(widths, config, attention=attention, resample=resample))
            width, side = out, side * 2
        self.up = nn.ModuleList(levels)
        self.norm_out = GroupNorm(config.norm_groups, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, config.out_ch, 3, padding=1)
        self.tanh_out = config.tanh_out

    def forward(self, z: Tensor) -> Tensor:
        """(n, z_channels, h', w') → (n, 3, h, w)."""
        h = self.mid(self.conv_in(z))
        for level in reversed(list(self.up)):
            h = level(h)
        x = cast("Tensor", self.conv_out(F.silu(self.norm_out(h))))
        return torch.tanh(x) if self.tanh_out else x


class Autoencoder2d(nn.Module):
    """2D KL autoencoder: images ↔ posterior moments ↔ latents."""

    def __init__(self, config: Autoencoder2dConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.z_channels, 2 * config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images (n, 3, h, w) in −1..1 to mean, log variance (n, 2·embed_dim, h', w')."""
        return cast(
            "Tensor", self.quant_conv(self.encoder(images.to(self.quant_conv.weight.dtype))).float()
        )

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (n, embed_dim, h', w'), not normalised, to images (n, 3, h, w)."""
        z = z.to(self.post_quant_conv.weight.dtype)
        return cast("Tensor", self.decoder(self.post_quant_conv(z)).float())
