"""The networks as the authors' code computes them: 5-D activations, Conv3d, einsum attention.

Runs on the parameters of ours; exists only to have something to compare speed with.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lvdm_export.nets.attention_block import AttentionBlock
from lvdm_export.nets.autoencoder3d import Autoencoder3d, UpBlock
from lvdm_export.nets.layers import FoldedConv, PaddedConvTranspose3d
from lvdm_export.nets.unet3d import UNet3d
from lvdm_export.nets.unet_blocks import ClipUpsample, Downsample, ResBlock


def forward(
    unet: UNet3d,
    latents: Tensor,
    timestep: Tensor,
    mask: Tensor | None = None,
    noise_level: Tensor | None = None,
    stride: Tensor | None = None,
) -> Tensor:
    """Predict the noise in latents (b, c, t, h, w), with a mask (b, t) where the model has one."""
    b, _, t, height, width = latents.shape
    h = latents
    if mask is not None:
        spread = mask[:, None, :, None, None].expand(b, 1, t, height, width)
        h = torch.cat([latents, spread], dim=1)  # (b, c + 1, t, h, w)
    emb = unet.embed(timestep, noise_level, stride)
    skips = []
    for stage in unet.input_blocks:
        h = _stage(stage, h, emb)
        skips.append(h)
    h = _stage(unet.middle_block, h, emb)
    for stage in unet.output_blocks:
        h = _stage(stage, torch.cat([h, skips.pop()], dim=1), emb)
    norm, act, conv = unet.out
    out = _conv(conv, act(_norm(norm, h)))
    if unet.config.prediction != "eps":
        return cast("Tensor", unet.velocity(out, latents, timestep))
    return out


class _Transposed(nn.Module):
    """A padded transposed convolution in one piece, column buffer and all."""

    def __init__(self, phases: PaddedConvTranspose3d) -> None:
        super().__init__()
        self.pad_input, self.convt = phases.pad_input, phases.convt

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.convt(F.pad(x, self.pad_input, mode="replicate")))


def use_transposed(network: Autoencoder3d) -> Autoencoder3d:
    """Let a decoder upsample as the authors' does; the rest of ours is theirs already."""
    for block in network.decoder.conv_blocks:
        up = cast("UpBlock", block)
        up.up = cast("PaddedConvTranspose3d", _Transposed(up.up))
    return network


def _stage(layers: Any, x: Tensor, emb: Tensor) -> Tensor:
    for layer in layers:
        if isinstance(layer, ResBlock):
            x = _res_block(layer, x, emb)
        elif isinstance(layer, AttentionBlock):
            x = _temporal(layer, _spatial(layer, x))
        elif isinstance(layer, Downsample):
            x = _conv(layer.op, x)
        elif isinstance(layer, ClipUpsample):
            x = _conv(layer.conv, F.interpolate(x, scale_factor=(1.0, 2.0, 2.0)))
        elif isinstance(layer, FoldedConv):
            x = _conv(layer, x)
        else:
            raise TypeError(f"no official layout for {type(layer).__name__}")
    return x


def _conv(conv: Any, x: Tensor) -> Tensor:
    return nn.Conv3d.forward(conv, x)


def _norm(norm: Any, x: Tensor) -> Tensor:
    return F.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps)


def _res_block(block: ResBlock, x: Tensor, emb: Tensor) -> Tensor:
    norm_in, act, conv_in = block.in_layers
    norm_out, _, _, conv_out = block.out_layers
    h = _conv(conv_in, act(_norm(norm_in, x)))
    scale, shift = block.emb_layers(emb)[:, :, None, None, None].chunk(2, dim=1)
    h = _conv(conv_out, act(_norm(norm_out, h) * (1 + scale) + shift))
    skip = block.skip_connection
    return (_conv(skip, x) if isinstance(skip, nn.Conv3d) else x) + h


def _spatial(block: AttentionBlock, x: Tensor) -> Tensor:
    b, c, t, height, width = x.shape
    y = x.transpose(1, 2).reshape(b * t, c, height * width)
    y = _attend((block.norm_s, block.qkv_s, block.proj_out_s), y, block.heads)
    return y.reshape(b, t, c, height, width).transpose(1, 2)


def _temporal(block: AttentionBlock, x: Tensor) -> Tensor:
    b, c, t, height, width = x.shape
    y = x.permute(0, 3, 4, 1, 2).reshape(b * height * width, c, t)
    relative = block.relative_position_k(t), block.relative_position_v(t)
    y = _attend((block.norm_t, block.qkv_t, block.proj_out_t), y, block.heads, relative)
    return y.reshape(b, height, width, c, t).permute(0, 3, 4, 1, 2)


def _attend(
    layers: Any, y: Tensor, heads: int, relative: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Let tokens y (n, c, tokens) attend to each other; `relative` positions are (t, t, c)."""
    norm, to_qkv, to_out = layers
    n, channels, tokens = y.shape
    width = channels // heads
    parts = nn.Conv1d.forward(to_qkv, _norm(norm, y)).chunk(3, dim=1)
    q, k, v = (part.reshape(n * heads, width, tokens) for part in parts)
    q, k = q * width**-0.25, k * width**-0.25
    weights = torch.einsum("bct,bcs->bts", q, k)
    if relative is not None:
        weights = weights + torch.einsum("bct,tsc->bst", q, relative[0])
    weights = weights.softmax(-1)
    attended = torch.einsum("bts,bcs->bct", weights, v)
    if relative is not None:
        attended = attended + torch.einsum("bts,tsc->bct", weights, relative[1])
    return y + nn.Conv1d.forward(to_out, attended.reshape(n, channels, tokens))
