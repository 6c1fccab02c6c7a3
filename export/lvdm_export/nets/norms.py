"""Norms whose statistics are float32 in networks of half precision, too; knows no other layer."""

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Group norm whose statistics are float32 whatever the input is.

    Statistics of half precision inputs overflow past |x| = 256 when squared, so the affine
    parameters stay float32 (see `to_half`) and the result is cast back to the input's type.
    """

    keep_float32 = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, c, …) over each group's channels and all later axes; same type."""
        return super().forward(x.float()).to(x.dtype)


class BatchNorm(nn.Module):
    """Batch norm by the statistics that training left, in float32; it learns none here."""

    keep_float32 = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (b, c, t, h, w) channel by channel; same type."""
        gain = self.weight * (self.running_var + 1e-5).rsqrt()
        offset = self.bias - self.running_mean * gain
        gain, offset = (part.reshape(-1, 1, 1, 1) for part in (gain, offset))
        return (x.float() * gain + offset).to(x.dtype)


class ClipNorm(GroupNorm):
    """Group norm of a folded clip: x is (b·t, c, h, w), its statistics span (t, h, w)."""

    def forward(
        self, x: Tensor, t: int = 1, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Normalise x (b·t, c, h, w), then apply (1 + scale)·x + shift, (b, c) each, if given.

        Statistics come from the mean and the length of each frame's group, without another layout.
        The deviation, the affine parameters and the adaptive scale and shift (adaptive group norm,
        paper section 3.2) are combined on (b, c): pixels are multiplied and added to once.
        """
        bt, c, h, w = x.shape
        g, n = self.num_groups, c // self.num_groups
        groups = x.float().reshape(-1, t, g, n * h * w)
        y: Tensor = groups - groups.mean(-1, keepdim=True).mean(1, keepdim=True)
        length = torch.linalg.vector_norm(y, dim=-1, keepdim=True)  # (b, t, g, 1)
        spread = (length.square().mean(1) / (n * h * w) + self.eps).rsqrt()
        gain, offset = self.weight[None], self.bias[None]  # (1, c)
        if scale is not None and shift is not None:
            gain, offset = gain * (1 + scale), offset * (1 + scale) + shift  # (b, c)
        gain = gain.reshape(-1, g, n) * spread  # (b, g, n)
        y = y.reshape(-1, t, c, h * w) * gain.reshape(-1, 1, c, 1) + offset.reshape(-1, 1, c, 1)
        return y.reshape(bt, c, h, w).to(x.dtype)
