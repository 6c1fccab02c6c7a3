"""A network of a few numbers that is called as StyleGAN-V's I3D is, as TorchScript."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional


class TinyI3d(nn.Module):
    """Gives logits (b, 400) of pixels (b, 3, f, h, w); pads by its input's size, as I3D does."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.convolution = nn.Conv3d(3, 6, (3, 8, 8), stride=(2, 8, 8))
        self.logits = nn.Linear(6, 400)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 8

    def forward(
        self,
        x: Tensor,
        rescale: bool = False,
        resize: bool = False,
        return_features: bool = False,
    ) -> Tensor:
        if rescale:
            x = 2 * x / 255 - 1
        if resize:
            b, c, t, h, w = x.shape
            x = x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w)
            x = functional.interpolate(x, (224, 224), mode="bilinear", align_corners=False)
            x = x.reshape(b, t, c, 224, 224).permute(0, 2, 1, 3, 4)
        x = functional.pad(x, [0, -x.shape[4] % 8, 0, -x.shape[3] % 8, 0, x.shape[2] % 2 + 1])
        x = functional.relu(self.convolution(x)).mean((3, 4))
        x = self.logits(x.transpose(1, 2)).mean(1)
        return x if return_features else x.softmax(1)


class OtherNetwork(nn.Module):
    """A TorchScript file of something else."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def save(network: nn.Module, path) -> None:
    """Write a network as TorchScript."""
    with warnings.catch_warnings(action="ignore"):  # that it is old
        torch.jit.script(network.eval()).save(str(path))
