"""Where training and evaluation clips come from: synthetic skies, or a folder of videos.

A source maps a clip number to pixels and remembers nothing, so a resumed run sees the same data and
workers need no common state. This module knows nothing of networks or losses.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import ConfigError
from lvdm_tools.data.captions import caption
from lvdm_tools.data.clip import CaptionedSource, ClipSpec, check_spec
from lvdm_tools.data.folder import VideoFolder, look
from lvdm_tools.data.synth import sky_clip

# Synthetic clips from this index on are never trained on.
HELD_OUT = 1 << 40


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

    def captioned(self, index: int) -> tuple[NDArray[np.uint8], str]:
        """Draw clip `index` and describe its middle."""
        number = index + HELD_OUT * self.held_out
        return self.clip(index), caption(self.seed, number, self.spec.span // 2)


def open_source(
    data: str | Path,
    spec: ClipSpec,
    *,
    seed: int = 0,
    held_out: bool = False,
    captioned: bool = False,
) -> CaptionedSource:
    """Open `synth`, or a folder of videos or of folders of pictures; its captions if asked for.

    Raises ConfigError: an impossible spec; TrainingError: a folder that is missing, unreadable, or
    has no clip long enough, or whose captions cannot be read.
    """
    (source,) = _open(data, spec, seed, (held_out,), captioned=captioned)
    return source


def open_both(
    data: str | Path, spec: ClipSpec, *, seed: int = 0
) -> tuple[CaptionedSource, CaptionedSource]:
    """Open training clips and held-out clips of the same data; raises as `open_source` does."""
    train, unseen = _open(data, spec, seed, (False, True))
    return train, unseen


def _open(
    data: str | Path,
    spec: ClipSpec,
    seed: int,
    shares: tuple[bool, ...],
    *,
    captioned: bool = False,
) -> list[CaptionedSource]:
    """Open the shares that are asked for, True being held out, and look at a folder once."""
    check_spec(spec)
    if str(data) == "synth":
        return [SynthClips(seed, spec, held_out) for held_out in shares]
    listing = look(Path(data), captioned=captioned)
    return [VideoFolder.of(listing, spec, seed, held_out=held_out) for held_out in shares]
