"""The LPIPS perceptual distance on VGG-16 features, with weights the user brings.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018): unit
length features of five layers, squared differences, a learned non-negative weight per channel,
mean over space, sum over layers. Weights are never downloaded: `vgg` is a state dict of
torchvision's VGG-16 (`features.N.weight`), `heads` one with `linK.model.1.weight`.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from lvdm_engines.errors import CheckpointError
from lvdm_export.checkpoint.keys import Checkpoint, open_checkpoint
from lvdm_tools.train.config import Perceptual

# torchvision's index of each convolution and its width; a new block begins after a 2×2 maximum
_BLOCKS = (
    ((0, 64), (2, 64)),
    ((5, 128), (7, 128)),
    ((10, 256), (12, 256), (14, 256)),
    ((17, 512), (19, 512), (21, 512)),
    ((24, 512), (26, 512), (28, 512)),
)
# ImageNet statistics for pixels in −1..1
_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Frozen perceptual distance of frames (b, 3, f, h, w) in −1..1, averaged over all frames."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *(width for block in _BLOCKS for _, width in block)]
        convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
        sizes = [len(block) for block in _BLOCKS]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.blocks = nn.ModuleList(
            nn.ModuleList(convolutions[start : start + size])
            for start, size in zip(starts, sizes, strict=True)
        )
        self.heads = nn.ParameterList(torch.zeros(1, block[-1][1], 1, 1) for block in _BLOCKS)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.requires_grad_(requires_grad=False)

    @staticmethod
    def load(settings: Perceptual) -> "Lpips":
        """Build the distance from the user's two weight files.

        Raises CheckpointError: unreadable file, missing key or wrong shape.
        """
        vgg, heads = _read(settings.vgg), _read(settings.heads)
        network = Lpips()
        for b, block in enumerate(_BLOCKS):
            for c, (index, _) in enumerate(block):
                for part in ("weight", "bias"):
                    target = getattr(network.blocks[b][c], part)  # type: ignore[index]
                    _copy(target, vgg, f"features.{index}.{part}")
            _copy(network.heads[b], heads, f"lin{b}.model.1.weight")
        return network

    def forward(self, frames: Tensor, decoded: Tensor) -> Tensor:
        """Return the mean distance, a scalar."""
        ours, theirs = self._features(decoded), self._features(frames)
        total = frames.new_zeros(())
        for a, b, head in zip(ours, theirs, self.heads, strict=True):
            total = total + ((_unit(a) - _unit(b)).square() * head).sum(dim=1).mean()
        return total

    def _features(self, frames: Tensor) -> list[Tensor]:
        h = (frames.transpose(1, 2).flatten(0, 1) - self.mean) / self.std  # (b·f, 3, h, w)
        features = []
        for number, block in enumerate(self.blocks):
            h = nn.functional.max_pool2d(h, 2) if number else h
            for convolution in block:  # type: ignore[attr-defined]
                h = nn.functional.relu(convolution(h))
            features.append(h)
        return features


def _unit(features: Tensor) -> Tensor:
    # added before the root, whose slope at 0 (all channels silent) would make gradients NaN
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()


def _read(path: Path) -> Checkpoint:
    try:
        return open_checkpoint(path)
    except CheckpointError as err:
        raise CheckpointError(f"cannot read LPIPS weights from {path}: {err}") from err


def _copy(target: Tensor, source: Checkpoint, key: str) -> None:
    stored = source.shapes.get(key)
    if stored != target.shape:
        raise CheckpointError(
            f"{source.path} holds {stored or 'nothing'} for {key}, expected "
            f"{tuple(target.shape)}: give torchvision's VGG-16 as vgg and the LPIPS linear layers "
            "as heads"
        )
    tensor = source.read(key).float()
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{source.path}: {key} holds NaN or infinity; download it again")
    with torch.no_grad():
        target.copy_(tensor)
