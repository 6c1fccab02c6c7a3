"""Spatio-temporal transformer of the text-to-video denoiser.

Each block attends over the pixels of a frame, the frames of a pixel, the text, and the frames
again.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lvdm_export.nets.attention import RelativePosition, attend, attend_frames
from lvdm_export.nets.layers import FoldedConv, zero
from lvdm_export.nets.norms import ClipNorm


class LayerNorm(nn.LayerNorm):
    """Layer norm with float32 statistics whatever the input is."""

    keep_float32 = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; same shape, same type."""
        return super().forward(x.float()).to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention of tokens to tokens or to a text context."""

    def __init__(self, dim: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        context_dim = dim if context_dim is None else context_dim
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim, dim, bias=False)
        self.to_out = nn.Sequential(
            nn.Linear(dim, dim), nn.Identity()
        )  # dropout in the official code

    def split(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) → (n, heads, tokens, dim/heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend from x (n, tokens, dim) to context (n, l, context_dim), or to x itself."""
        source = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        y = self.attend(self.split(q), self.split(k), self.split(v))
        return cast("Tensor", self.to_out(y.transpose(1, 2).flatten(2)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Combine q, k, v (n, heads, tokens, d)."""
        return attend(q, k, v)


class TemporalAttention(Attention):
    """Attention over the frames of a pixel, with `relative` positions or none."""

    def __init__(self, dim: int, heads: int, temporal_length: int, *, relative: bool) -> None:
        super().__init__(dim, heads)
        self.relative = relative
        if relative:
            self.relative_position_k = RelativePosition(dim // heads, temporal_length)
            self.relative_position_v = RelativePosition(dim // heads, temporal_length)
        # Starts as no attention at all; queries, keys and the projection out are all zero.
        for layer in (self.to_q, self.to_k, self.to_v, self.to_out):
            zero(layer)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend with the position terms of t frames added; see `attend_frames`."""
        if not self.relative:
            return super().attend(q, k, v)
        t = q.shape[2]
        relative = (self.relative_position_k(t), self.relative_position_v(t))
        return attend_frames((q, k, v), relative, "plain")


class GatedGelu(nn.Module):
    """Gated linear unit with a GELU gate (Shazeer, arXiv 2002.05202)."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) → (…, inner)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return cast("Tensor", value * F.gelu(gate))


class FeedForward(nn.Module):
    """Gated feed-forward layer, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGelu(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) → (…, dim)."""
        return cast("Tensor", self.net(x))


class TransformerBlock(nn.Module):
    """Spatial, temporal, text and again temporal attention, then a feed-forward layer."""

    def __init__(
        self, dim: int, heads: int, context_dim: int, temporal_length: int, *, relative: bool
    ) -> None:
        super().__init__()
        self.attn1 = Attention(dim, heads)
        self.attn2 = Attention(dim, heads, context_dim)
        self.ff = FeedForward(dim)
        self.norm1 = LayerNorm(dim)
        self.norm2 = LayerNorm(dim)
        self.norm3 = LayerNorm(dim)
        self.attn1_tmp = TemporalAttention(dim, heads, temporal_length, relative=relative)
        self.attn2_tmp = TemporalAttention(dim, heads, temporal_length, relative=relative)
        self.norm4 = LayerNorm(dim)
        self.norm5 = LayerNorm(dim)

    def forward(self, x: Tensor, t: int, context: Tensor) -> Tensor:
        """Transform tokens x (b·t, hw, c) given context (b, l, d)."""
        n, hw, c = x.shape
        x = x + self.attn1(self.norm1(x))
        x = x + _over_frames(self.attn1_tmp, self.norm4(x), t)
        # All frames of a clip ask the same text, so time joins the queries instead of repeating the
        # text.
        text = self.attn2(self.norm2(x).reshape(-1, t * hw, c), context)
        x = x + text.reshape(n, hw, c)
        x = x + _over_frames(self.attn2_tmp, self.norm5(x), t)
        return cast("Tensor", x + self.ff(self.norm3(x)))


def _over_frames(attention: nn.Module, x: Tensor, t: int) -> Tensor:
    """Apply temporal attention to tokens x (b·t, hw, c)."""
    n, hw, c = x.shape
    y = x.reshape(-1, t, hw, c).transpose(1, 2).reshape(-1, t, c)  # (b·hw, t, c)
    y = cast("Tensor", attention(y))
    return y.reshape(-1, hw, t, c).transpose(1, 2).reshape(n, hw, c)


class VideoTransformer(nn.Module):
    """Transformer blocks between two 1×1×1 projections, with a residual connection around all."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        context_dim: int,
        depth: int,
        temporal_length: int,
        norm_groups: int,
        relative: bool,
    ) -> None:
        super().__init__()
        self.norm = ClipNorm(norm_groups, channels, eps=1e-6)
        self.proj_in = FoldedConv(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context_dim, temporal_length, relative=relative)
            for _ in range(depth)
        )
        self.proj_out = zero(FoldedConv(channels, channels, 1))

    def forward(self, x: Tensor, t: int, context: Tensor | None) -> Tensor:
        """Transform x (b·t, c, h, w) given context (b, l, d).

        Raises ValueError when there is no context: the text model cannot run without one.
        """
        if context is None:
            raise ValueError("a text-conditioned UNet needs a context (b, l, d), got none")
        n, c, height, width = x.shape
        y = self.proj_in(self.norm(x, t))
        y = y.reshape(n, c, height * width).transpose(1, 2)  # (b·t, hw, c)
        for block in self.transformer_blocks:
            y = block(y, t, context)
        return cast("Tensor", x + self.proj_out(y.transpose(1, 2).reshape(n, c, height, width)))
