"""Attention of the denoisers: spatial through SDPA, temporal with relative positions.

Everything here works on tokens; the layout of frames is the caller's (see `unet3d` and
`transformer`).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention over q, k, v (…, heads, tokens, d), softmax in float32.

    `mask` (query, key), float32, is added to the scores where there is one.

    In float32 this is SDPA. In half precision the scores are cast up for the softmax only: some
    heads exceed the half range there, while the products are safe once q and k are scaled first.
    """
    if q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scale = q.shape[-1] ** -0.25
    scores = ((q * scale) @ (k * scale).transpose(-1, -2)).float()
    scores = scores if mask is None else scores + mask
    weights: Tensor = scores.softmax(-1).to(v.dtype)
    return weights @ v


def attend_maps(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention over q, k, v (…, heads, d, pixels) as convolutions leave them.

    The same as `attend`, without a change of layout.
    """
    scale = q.shape[-2] ** -0.25
    scores = (q * scale).transpose(-1, -2) @ (k * scale)  # (…, query, key)
    weights: Tensor = scores.float().softmax(-1).to(v.dtype)
    return v @ weights.transpose(-1, -2)


class RelativePosition(nn.Module):
    """Learned embedding of the clipped distance of two frames (Shaw et al., arXiv 1803.02155)."""

    def __init__(self, dim: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.embeddings_table = nn.Parameter(torch.empty(2 * max_distance + 1, dim))
        nn.init.xavier_uniform_(self.embeddings_table)

    def forward(self, t: int) -> Tensor:
        """Embeddings of key position minus query position, (query t, key t, d)."""
        position = torch.arange(t, device=self.embeddings_table.device)
        distance = position[None, :] - position[:, None]
        return self.embeddings_table[
            distance.clamp(-self.max_distance, self.max_distance) + self.max_distance
        ]


def attend_frames(
    qkv: tuple[Tensor, Tensor, Tensor],
    relative: tuple[Tensor, Tensor],
    key_term: Literal["transposed", "plain"],
    *,
    short: bool = False,
) -> Tensor:
    """Temporal attention over q, k, v (n, heads, t, d) with relative position terms.

    `relative` holds the terms of key and value, (query t, key t, d) each. In `short` clips they are
    multiplied as one block matrix, which engines do much faster than t small products between two
    changes of layout.

    `key_term` says which index of the key term is the query. The attention block of the video
    models adds it "transposed" (its einsum writes b,s,t while the scores are b,t,s, and scales it
    once by d^-1/4); trained weights depend on that. The transformer of the text model adds it
    "plain", scaled by d^-1/2 like the scores. The value term is added after the softmax in both.
    """
    q, k, v = qkv
    k_rel, v_rel = relative
    scale = q.shape[-1] ** -0.25
    scores = (q * scale) @ (k * scale).transpose(-1, -2)  # (n, heads, query, key)
    if key_term == "transposed":
        scores = scores + _each(q * scale, k_rel.transpose(1, 2), short).transpose(-1, -2)
    else:
        scores = scores + _each(q * scale * scale, k_rel.transpose(1, 2), short)
    weights: Tensor = scores.float().softmax(-1).to(v.dtype)
    return weights @ v + _each(weights, v_rel, short)


def _each(x: Tensor, terms: Tensor, short: bool) -> Tensor:
    """Multiply row i of x (n, heads, t, k) by matrix i of `terms` (t, k, m): (n, heads, t, m)."""
    t, k, m = terms.shape
    if not short:
        return torch.einsum("nhtk,tkm->nhtm", x, terms)
    frames = torch.arange(t, device=terms.device)
    same = (frames[:, None] == frames).to(terms.dtype)
    blocks = (terms[:, :, None, :] * same[:, None, :, None]).reshape(t * k, t * m)
    return (x.reshape(*x.shape[:2], t * k) @ blocks).reshape(*x.shape[:2], t, m)
