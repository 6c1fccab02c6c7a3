"""The 3D KL video autoencoder (paper section 3.1) with the official parameter names.

Frames are (b, 3, f, h, w) in −1..1; latents here are not normalised (the exported graphs do that).
"""

from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name every torch reader expects

from lvdm_export.nets.layers import PaddedConv3d, PaddedConvTranspose3d, unit_gain, zero
from lvdm_export.nets.norms import BatchNorm, GroupNorm
from lvdm_export.nets.sizes import Downsample, Width


@dataclass(frozen=True, kw_only=True)
class Autoencoder3dConfig:
    """Sizes of a 3D autoencoder; `downsample` are powers of two for time, height and width.

    With `patch` above 1 the network works on squares of so many pixels a side, told as channels: at
    a quarter of the cost per pixel for 2 (space to depth; not in the paper). `padding_type` is that
    of the encoder's convolutions outside of its residual blocks, as in the authors' code.
    """

    n_hiddens: Width = 32
    downsample: Downsample = (4, 8, 8)
    z_channels: Width = 4
    embed_dim: Width = 4
    norm_groups: Width = 32
    image_channels: Width = 3
    patch: Width = 1
    norm_type: Literal["group", "batch"] = "group"
    padding_type: Literal["replicate", "reflect", "constant"] = "replicate"

    def __post_init__(self) -> None:
        """Raise ValueError unless every factor is a power of two and one is above 1."""
        if any(d < 1 or d & (d - 1) for d in self.downsample) or max(self.downsample) < 2:
            raise ValueError(
                "downsample must be three powers of two, at least one above 1, "
                f"got {self.downsample}"
            )
        if min(self.downsample[1:]) % self.patch:
            raise ValueError(f"patch is {self.patch}, expected a divisor of {self.downsample[1:]}")
        if not self.strides():
            raise ValueError(f"patch {self.patch} leaves no level of downsample {self.downsample}")

    def strides(self) -> list[tuple[int, int, int]]:
        """Stride of every encoder level: 2 on an axis until its factor is used up, then 1."""
        t, h, w = self.downsample
        times = [d.bit_length() - 1 for d in (t, h // self.patch, w // self.patch)]
        levels = max(times)
        return [
            cast("tuple[int, int, int]", tuple(2 if n > i else 1 for n in times))
            for i in range(levels)
        ]


def _norm(channels: int, config: Autoencoder3dConfig) -> nn.Module:
    if config.norm_type == "batch":
        return BatchNorm(channels)
    return GroupNorm(config.norm_groups, channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two 3×3×3 convolutions with norms, same width in and out; starts as the identity."""

    def __init__(self, channels: int, config: Autoencoder3dConfig) -> None:
        super().__init__()
        self.norm1 = _norm(channels, config)
        self.conv1 = PaddedConv3d(channels, channels, 3)
        self.norm2 = _norm(channels, config)
        self.conv2 = zero(PaddedConv3d(channels, channels, 3))
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, t, h, w) → same."""
        h = self.conv1(self.act(self.norm1(x)))
        return cast("Tensor", x + self.conv2(self.act(self.norm2(h))))


class DownBlock(nn.Module):
    """A strided convolution and a residual block."""

    def __init__(
        self, channels: int, stride: tuple[int, int, int], config: Autoencoder3dConfig
    ) -> None:
        super().__init__()
        mode = config.padding_type
        self.down = unit_gain(PaddedConv3d(channels, 2 * channels, 4, stride, mode))
        self.res = ResBlock(2 * channels, config)

    def forward(self, x: Tensor) -> Tensor:
        """Downsample (b, c, t, h, w) by the stride, doubling the channels."""
        return cast("Tensor", self.res(self.down(x)))


class UpBlock(nn.Module):
    """A transposed convolution and two residual blocks."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: tuple[int, int, int],
        config: Autoencoder3dConfig,
    ) -> None:
        super().__init__()
        self.up = unit_gain(PaddedConvTranspose3d(in_channels, out_channels, stride))
        self.res1 = ResBlock(out_channels, config)
        self.res2 = ResBlock(out_channels, config)

    def forward(self, x: Tensor) -> Tensor:
        """Upsample (b, c, t, h, w) by the stride."""
        return cast("Tensor", self.res2(self.res1(self.up(x))))


class Encoder(nn.Module):
    """Frames to features at the latent resolution."""

    def __init__(self, config: Autoencoder3dConfig) -> None:
        super().__init__()
        self.conv_blocks = nn.ModuleList(
            DownBlock(config.n_hiddens * 2**i, stride, config)
            for i, stride in enumerate(config.strides())
        )
        self.patch = config.patch
        channels = config.image_channels * config.patch**2
        mode = config.padding_type
        self.conv_first = unit_gain(PaddedConv3d(channels, config.n_hiddens, 3, mode=mode))
        width = config.n_hiddens * 2 ** len(self.conv_blocks)
        self.final_block = nn.Sequential(
            _norm(width, config),
            nn.SiLU(),
            unit_gain(PaddedConv3d(width, 2 * config.z_channels, 3, mode=mode)),
        )
        # The last norm would hide the absolute brightness and colour of a clip; constant offsets
        # between its channels carry them through from the first step on.
        last = cast("DownBlock", self.conv_blocks[-1])
        nn.init.normal_(cast("Tensor", last.down.conv.bias))

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, f, h, w) → (b, 2·z_channels, t, h', w')."""
        if self.patch > 1:  # (b, 3, f, h, w) → (b, 3·p², f, h/p, w/p)
            x = F.pixel_unshuffle(x.transpose(1, 2), self.patch).transpose(1, 2)
        h = self.conv_first(x)
        for block in self.conv_blocks:
            h = block(h)
        return cast("Tensor", self.final_block(h))


class Decoder(nn.Module):
    """Latents to frames."""

    def __init__(self, config: Autoencoder3dConfig) -> None:
        super().__init__()
        # The decoder uses up the strides in the encoder's order, not mirrored: with (2, 4, 4) time
        # grows in the first (coarsest) level. Trained weights depend on it.
        strides = config.strides()
        self.conv_blocks = nn.ModuleList()
        width = config.z_channels
        for i, stride in enumerate(strides):
            out = config.n_hiddens * 2 ** (len(strides) - i)
            self.conv_blocks.append(UpBlock(width, out, stride, config))
            width = out
        self.patch = config.patch
        channels = config.image_channels * config.patch**2
        self.conv_out = unit_gain(PaddedConv3d(width, channels, 3))

    def forward(self, z: Tensor) -> Tensor:
        """(b, z_channels, t, h', w') → (b, 3, f, h, w)."""
        h = z
        for block in self.conv_blocks:
            h = block(h)
        x: Tensor = self.conv_out(h)
        if self.patch > 1:
            x = F.pixel_shuffle(x.transpose(1, 2), self.patch).transpose(1, 2)
        return x


class Autoencoder3d(nn.Module):
    """3D KL autoencoder: frames ↔ posterior moments ↔ latents."""

    def __init__(self, config: Autoencoder3dConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = unit_gain(PaddedConv3d(2 * config.z_channels, 2 * config.embed_dim, 1))
        self.post_quant_conv = unit_gain(PaddedConv3d(config.embed_dim, config.z_channels, 1))

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames (b, 3, f, h, w) in −1..1 to mean and log variance.

        Returns moments (b, 2·embed_dim, t, h', w'), float32.
        """
        dtype = self.encoder.conv_first.conv.weight.dtype
        return cast("Tensor", self.quant_conv(self.encoder(frames.to(dtype))).float())

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (b, embed_dim, t, h', w'), not normalised, to frames (b, 3, f, h, w)."""
        dtype = self.decoder.conv_out.conv.weight.dtype
        return cast("Tensor", self.decoder(self.post_quant_conv(z.to(dtype))).float())

    def forward(self, frames: Tensor) -> Tensor:
        """Reconstruct frames through the posterior mean."""
        return self.decode(self.encode(frames).chunk(2, dim=1)[0])
