"""The attention block of the video denoisers."""

from typing import cast

from torch import Tensor, nn

from lvdm_export.nets.attention import RelativePosition, attend, attend_frames, attend_maps
from lvdm_export.nets.layers import TokenConv, zero
from lvdm_export.nets.norms import ClipNorm, GroupNorm

_SHORT = 8  # frames: up to here t times the work, in one product, takes less than new layouts


class AttentionBlock(nn.Module):
    """Factorised attention: over the pixels of each frame, then over the frames of each pixel.

    Frames know their distances by `relative` positions, or not at all.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        temporal_length: int,
        norm_groups: int,
        *,
        relative: bool = True,
    ) -> None:
        super().__init__()
        self.relative = relative
        self.heads, self.short = heads, temporal_length <= _SHORT
        self.norm_s = ClipNorm(norm_groups, channels)
        self.norm_t = GroupNorm(norm_groups, channels)
        self.qkv_s = nn.Conv1d(channels, 3 * channels, 1)
        self.qkv_t = TokenConv(channels, 3 * channels)
        if relative:
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
        q, k, v = y.reshape(n, 3, self.heads, c // self.heads, height * width).unbind(1)
        y = attend_maps(q, k, v).reshape(n, c, height * width)
        return x + cast("Tensor", self.proj_out_s(y)).reshape(n, c, height, width)

    def _temporal(self, x: Tensor, t: int) -> Tensor:
        n, c, height, width = x.shape
        qkv = self.qkv_t(self._norm_pixels(x, t))  # (b·hw, t, 3c)
        q, k, v = (
            qkv.reshape(-1, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        if self.relative:
            terms = (self.relative_position_k(t), self.relative_position_v(t))
            y = attend_frames((q, k, v), terms, "transposed", short=self.short)
        else:
            y = attend(q, k, v)  # (b·hw, heads, t, d)
        y = cast("Tensor", self.proj_out_t(y.transpose(1, 2).reshape(-1, t, c)))
        y = y.reshape(-1, height * width, t, c).permute(0, 2, 3, 1)  # (b, t, c, hw)
        return x + y.reshape(n, c, height, width)

    def _norm_pixels(self, x: Tensor, t: int) -> Tensor:
        """Group norm of every pixel over its t tokens, (b·t, c, h, w) → tokens (b·hw, t, c)."""
        _, c, height, width = x.shape
        norm, n = self.norm_t, c // self.norm_t.num_groups
        y = x.float().reshape(-1, t, norm.num_groups, n, height * width)
        y = y - y.mean(3, keepdim=True).mean(1, keepdim=True)
        power = y.square().mean(3, keepdim=True).mean(1, keepdim=True)  # (b, 1, g, 1, hw)
        gain = (power + norm.eps).rsqrt() * norm.weight.reshape(-1, n, 1)
        y = y * gain + norm.bias.reshape(-1, n, 1)
        y = y.reshape(-1, t, c, height * width).permute(0, 3, 1, 2)
        return y.reshape(-1, t, c).to(x.dtype)
