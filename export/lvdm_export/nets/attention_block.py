"""The attention block of the video denoisers."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lvdm_export.nets.attention import RelativePosition, attend, attend_frames
from lvdm_export.nets.layers import GroupNorm, TokenConv, zero


class AttentionBlock(nn.Module):
    """Factorised attention: over the pixels of each frame, then over the frames of each pixel."""

    def __init__(self, channels: int, heads: int, temporal_length: int, norm_groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_s = GroupNorm(norm_groups, channels)
        self.norm_t = GroupNorm(norm_groups, channels)
        self.qkv_s = nn.Conv1d(channels, 3 * channels, 1)
        self.qkv_t = TokenConv(channels, 3 * channels)
        self.relative_position_k = RelativePosition(channels // heads, temporal_length)
        self.relative_position_v = RelativePosition(channels // heads, temporal_length)
        self.proj_out_s = zero(nn.Conv1d(channels, channels, 1))
        self.proj_out_t = zero(TokenConv(channels, channels))

    def forward(self, x: Tensor, t: int) -> Tensor:
        """Attend within x (b·t, c, h, w)."""
        return self._temporal(self._spatial(x), t)

    def _spatial(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        y = self.qkv_s(self.norm_s(x).reshape(n, c, height * width))
        q, k, v = (
            y.reshape(n, 3, self.heads, c // self.heads, height * width).transpose(-1, -2).unbind(1)
        )
        y = attend(q, k, v).transpose(-1, -2).reshape(n, c, height * width)
        return x + cast("Tensor", self.proj_out_s(y)).reshape(n, c, height, width)

    def _temporal(self, x: Tensor, t: int) -> Tensor:
        n, c, height, width = x.shape
        qkv = self.qkv_t(self._norm_pixels(x, t))  # (b·hw, t, 3c)
        q, k, v = (
            qkv.reshape(-1, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        relative = (self.relative_position_k(t), self.relative_position_v(t))
        y = attend_frames((q, k, v), relative, "transposed")  # (b·hw, heads, t, d)
        y = cast("Tensor", self.proj_out_t(y.transpose(1, 2).reshape(-1, t, c)))
        y = y.reshape(-1, height * width, t, c).permute(0, 2, 3, 1)  # (b, t, c, hw)
        return x + y.reshape(n, c, height, width)

    def _norm_pixels(self, x: Tensor, t: int) -> Tensor:
        """Group norm of every pixel over its t tokens, as a layer norm with the group as last axis.

        (b·t, c, h, w) → tokens (b·hw, t, c).
        """
        _, c, height, width = x.shape
        norm, n = self.norm_t, c // self.norm_t.num_groups
        y = x.float().reshape(-1, t, norm.num_groups, n, height * width).permute(0, 4, 2, 1, 3)
        y = F.layer_norm(y.reshape(-1, norm.num_groups, t * n), (t * n,), eps=norm.eps)
        y = y.reshape(-1, norm.num_groups, t, n).transpose(1, 2).reshape(-1, t, c)
        return (y * norm.weight + norm.bias).to(x.dtype)
