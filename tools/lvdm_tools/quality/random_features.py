"""A fixed space of random features, in which sets of clips have distances.

The space is a small 3D convolutional network whose weights are drawn once from a pinned seed and
never trained: it needs no download, and the same clips give the same numbers everywhere. Its
distances rank models of one data set; they are not FVD, and mean nothing across data sets. What a
number means is told by the distance between two sets of real clips of the same size, the floor.
On 128 synthetic skies, in floors: shrunk 4-fold and enlarged again 1.1, 8-fold 2.4, 16-fold 6.5,
twice the speed 1.9, 10 levels brighter 3.2, noise of 3 levels 2.6, frames shuffled 4.1, frozen 13,
8 clips repeated 42, every frame one plain colour 90, white noise 360.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lvdm_engines.errors import ConfigError

FEATURES = 24  # dimensions of the space, so that a hundred clips pin a covariance down
LEAST_CLIPS = 2 * FEATURES  # below this a distance is mostly noise
_SEED = 20221123
_SIDE = 64  # clips of another size are brought to this one by averaging or bilinear interpolation
_KERNEL = (3, 5, 5)
_CHANNELS = (3, 16, 32, 64)
_STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))


@torch.no_grad()
def features(clips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Place clips in the space: uint8 (n, f, h, w, 3) → (n, FEATURES).

    Mean and spread over space and time of every channel of every layer; their square roots, which
    keep a few extreme clips from deciding the covariance; projected on random directions.
    Raises ConfigError: not uint8 clips, or fewer than 4 frames.
    """
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3 or clips.shape[1] < 4:
        raise ConfigError(
            f"features: got {clips.dtype} {clips.shape}, expected uint8 (n, 4 or more, h, w, 3)"
        )
    pooled = np.sqrt(np.concatenate([_pooled(clip) for clip in clips]))  # (n, 224)
    placed: NDArray[np.float64] = pooled @ _directions(pooled.shape[1])
    return placed


def _pooled(clip: NDArray[np.uint8]) -> NDArray[np.float64]:
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(clip, -1, 0))).float()  # (3, f, h, w)
    x = x.div_(127.5).sub_(1)
    if max(x.shape[2:]) >= _SIDE:
        x = functional.adaptive_avg_pool2d(x, (_SIDE, _SIDE))
    else:
        x = functional.interpolate(x, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
    x = x[None]
    pooled = []
    for weight, stride in zip(_weights(), _STRIDES, strict=True):
        padded = functional.pad(x, (2, 2, 2, 2, 1, 1), mode="replicate")
        x = functional.relu(functional.conv3d(padded, weight, stride=stride))
        pooled += [x.mean((2, 3, 4)), x.std((2, 3, 4))]
    return torch.cat(pooled, dim=1).double().numpy()


@cache
def _weights() -> tuple[torch.Tensor, ...]:
    rng = np.random.Generator(np.random.Philox(key=_SEED))
    layers = []
    for inputs, outputs in pairwise(_CHANNELS):
        weight = rng.standard_normal((outputs, inputs, *_KERNEL), dtype=np.float32)
        # A third of the channels answers to change over time only; without them a frozen clip
        # would pass as real.
        weight[0::3] -= weight[0::3].mean(axis=2, keepdims=True)
        weight *= np.sqrt(2 / np.prod(weight.shape[1:]))
        layers.append(torch.from_numpy(weight))
    return tuple(layers)


def _directions(dimensions: int) -> NDArray[np.float64]:
    """Random directions of length 1 in the raw space: (dimensions, FEATURES)."""
    rng = np.random.Generator(np.random.Philox(key=_SEED + 1))
    directions = rng.standard_normal((dimensions, FEATURES))
    unit: NDArray[np.float64] = directions / np.linalg.norm(directions, axis=0)
    return unit
