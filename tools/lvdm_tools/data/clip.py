"""What a clip is: its shape, the protocol of all sources, and what makes a shape impossible.

Knows neither files nor networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import ConfigError


@dataclass(frozen=True)
class ClipSpec:
    """What every clip of a source looks like: frames, (height, width) in pixels, frame stride."""

    frames: int
    size: tuple[int, int]
    stride: int = 1

    @property
    def span(self) -> int:
        """Source frames from the first to the last frame of a clip, both included."""
        return (self.frames - 1) * self.stride + 1


class ClipSource(Protocol):
    """Clips by number."""

    @property
    def spec(self) -> ClipSpec:
        """What the clips look like."""
        ...

    @property
    def identity(self) -> str:
        """What, beside spec and seed, decides what the clips show: sources of one are alike."""
        ...

    def clip(self, index: int) -> NDArray[np.uint8]:
        """Clip `index`, any number from 0 on, as uint8 (f, h, w, 3); the same at every call."""
        ...


class CaptionedSource(ClipSource, Protocol):
    """Clips by number, and what they show."""

    def captioned(self, index: int) -> tuple[NDArray[np.uint8], str]:
        """Clip `index` and what it shows, in words; "" where nobody said."""
        ...


def check_spec(spec: ClipSpec) -> None:
    """Refuse clips without frames or pixels.

    Raises ConfigError: naming the field.
    """
    values = {"frames": spec.frames, "stride": spec.stride, "size": min(spec.size)}
    for field, value in values.items():
        if value < 1:
            raise ConfigError(f"clips: {field} is {value}; expected 1 or more")


def check_divisible(spec: ClipSpec, downsample: Sequence[int]) -> None:
    """Refuse clips that an autoencoder's downsampling (frames, height, width) does not divide.

    Raises ConfigError: with the nearest size that fits.
    """
    for name, size, factor in zip(
        ("frames", "height", "width"), (spec.frames, *spec.size), downsample, strict=True
    ):
        if size % factor:
            fits = max(factor, size // factor * factor)
            raise ConfigError(
                f"clips: {name} {size} is not divisible by the autoencoder's downsample {factor}; "
                f"use {fits} or {size // factor * factor + factor}"
            )
