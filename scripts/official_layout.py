"""The denoiser as the authors' code computes it: 5-D activations, Conv3d, einsum attention.

Runs on the parameters of `UNet3d`; exists only to have something to compare speed with.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lvdm_export.nets.layers import FoldedConv
from lvdm_export.nets.unet3d import AttentionBlock, Downsample, ResBlock, UNet3d, Upsample


def forward(
    unet: UNet3d, latents: Tensor, timestep: Tensor, mask: Tensor, noise_level: Tensor
) -> Tensor:
    """Predict the noise in latents (b, c, t, h, w) with a mask (b, t)."""
    b, _, t, height, width = latents.shape
    spread = mask[:, None, :, None, None].expand(b, 1, t, height, width)
    h = torch.cat([latents, spread], dim=1)  # (b, c + 1, t, h, w)
    emb = unet.embed(timestep, noise_level)
    skips = []
    for stage in unet.input_blocks:
        h = _stage(stage, h, emb)
        skips.append(h)
    h = _stage(unet.middle_block, h, emb)
    for stage in unet.output_blocks:
        h = _stage(stage, torch.cat([h, skips.pop()], dim=1), emb)
    norm, act, conv = unet.out
    return nn.Conv3d.forward(conv, act(_norm(norm, h)))


def _stage(layers: Any, x: Tensor, emb: Tensor) -> Tensor:
    for layer in layers:
        if isinstance(layer, ResBlock):
            x = _res_block(layer, x, emb)
        elif isinstance(layer, AttentionBlock):
            x = _temporal(layer, _spatial(layer, x))
        elif isinstance(layer, Downsample):
            x = nn.Conv3d.forward(layer.op, x)
        elif isinstance(layer, Upsample):
            x = nn.Conv3d.forward(layer.conv, F.interpolate(x, scale_factor=(1.0, 2.0, 2.0)))
        elif isinstance(layer, FoldedConv):
            x = nn.Conv3d.forward(layer, x)
        else:
            raise TypeError(f"no official layout for {type(layer).__name__}")
    return x


def _norm(norm: Any, x: Tensor) -> Tensor:
    return F.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps)


def _res_block(block: ResBlock, x: Tensor, emb: Tensor) -> Tensor:
    norm_in, act, conv_in = block.in_layers
    norm_out, _, _, conv_out = block.out_layers
    h = nn.Conv3d.forward(conv_in, act(_norm(norm_in, x)))
    scale, shift = block.emb_layers(emb)[:, :, None, None, None].chunk(2, dim=1)
    h = nn.Conv3d.forward(conv_out, act(_norm(norm_out, h) * (1 + scale) + shift))
    skip = block.skip_connection
    return (nn.Conv3d.forward(skip, x) if isinstance(skip, nn.Conv3d) else x) + h


def _heads(y: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    n, channels, tokens = y.shape
    q, k, v = y.chunk(3, dim=1)
    width = channels // 3 // heads
    return tuple(part.reshape(n * heads, width, tokens) for part in (q, k, v))


def _spatial(block: AttentionBlock, x: Tensor) -> Tensor:
    b, c, t, height, width = x.shape
    y = x.transpose(1, 2).reshape(b * t, c, height * width)
    q, k, v = _heads(nn.Conv1d.forward(block.qkv_s, _norm(block.norm_s, y)), block.heads)
    scale = q.shape[1] ** -0.25
    weights = torch.einsum("bct,bcs->bts", q * scale, k * scale).softmax(-1)
    attended = torch.einsum("bts,bcs->bct", weights, v).reshape(b * t, c, -1)
    y = y + nn.Conv1d.forward(block.proj_out_s, attended)
    return y.reshape(b, t, c, height, width).transpose(1, 2)


def _temporal(block: AttentionBlock, x: Tensor) -> Tensor:
    b, c, t, height, width = x.shape
    y = x.permute(0, 3, 4, 1, 2).reshape(b * height * width, c, t)
    q, k, v = _heads(nn.Conv1d.forward(block.qkv_t, _norm(block.norm_t, y)), block.heads)
    scale = q.shape[1] ** -0.25
    weights = torch.einsum("bct,bcs->bts", q * scale, k * scale)
    weights = weights + torch.einsum("bct,tsc->bst", q * scale, block.relative_position_k(t))
    weights = weights.softmax(-1)
    attended = torch.einsum("bts,bcs->bct", weights, v)
    attended = attended + torch.einsum("bts,tsc->bct", weights, block.relative_position_v(t))
    y = y + nn.Conv1d.forward(block.proj_out_t, attended.reshape(b * height * width, c, t))
    return y.reshape(b, height, width, c, t).permute(0, 3, 4, 1, 2)
