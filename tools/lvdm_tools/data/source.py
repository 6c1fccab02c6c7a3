"""Where training and evaluation clips come from: synthetic skies, or a folder of videos.

A source maps a clip number to pixels and remembers nothing, so a resumed run sees the same data and
workers need no common state. This module knows nothing of networks or losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lvdm_engines.errors import ConfigError
from lvdm_tools.data.synth import sky_clip

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

# Synthetic clips from this index on are never trained on.
HELD_OUT = 1 << 40


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


@dataclass(frozen=True)
class SynthClips:
    """Endless synthetic skies; held-out clips have indices that training never reaches."""

    seed: int
    spec: ClipSpec
    held_out: bool = False
    identity = "synth"

    def clip(self, index: int) -> NDArray[np.uint8]:
        """Draw clip `index`."""
        if not 0 <= index < HELD_OUT:
            raise ConfigError(f"synthetic clip {index}: expected an index from 0 to 2**40 − 1")
        number = index + HELD_OUT * self.held_out
        spec = self.spec
        return sky_clip(self.seed, spec.frames, spec.size, index=number, stride=spec.stride)


def open_source(
    data: str | Path, spec: ClipSpec, *, seed: int = 0, held_out: bool = False
) -> ClipSource:
    """Open `synth`, or a folder of videos.

    Raises:
        ConfigError: an impossible spec.
        TrainingError: a folder that is missing, unreadable, or has no clip long enough.

    """
    check_spec(spec)
    if str(data) == "synth":
        return SynthClips(seed, spec, held_out)
    from lvdm_tools.data.folder import VideoFolder

    return VideoFolder.open(Path(data), spec, seed=seed, held_out=held_out)


def open_both(data: str | Path, spec: ClipSpec, *, seed: int = 0) -> tuple[ClipSource, ClipSource]:
    """Open training clips and held-out clips of the same data; raises as `open_source` does."""
    check_spec(spec)
    if str(data) == "synth":
        return SynthClips(seed, spec), SynthClips(seed, spec, held_out=True)
    from lvdm_tools.data.folder import VideoFolder

    return VideoFolder.open_both(Path(data), spec, seed=seed)


def check_spec(spec: ClipSpec) -> None:
    """Refuse clips without frames or pixels.

    Raises:
        ConfigError: naming the field.

    """
    values = {"frames": spec.frames, "stride": spec.stride, "size": min(spec.size)}
    for field, value in values.items():
        if value < 1:
            raise ConfigError(f"clips: {field} is {value}; expected 1 or more")


def check_divisible(spec: ClipSpec, downsample: Sequence[int]) -> None:
    """Refuse clips that an autoencoder's downsampling (frames, height, width) does not divide.

    Raises:
        ConfigError: with the nearest size that fits.

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
