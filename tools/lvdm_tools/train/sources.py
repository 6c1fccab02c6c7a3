"""Where training clips come from: the synthetic sky or a folder of videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lvdm_tools.synth import sky_clip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lvdm_tools.train.config import Run

HELD_OUT = 2**40  # clip numbers from here on are never trained on


class ClipSource(Protocol):
    """Clips by number: the same number is the same clip, always."""

    name: str

    def clip(self, index: int, frames: int, stride: int) -> NDArray[np.uint8]:
        """Return uint8 (f, h, w, 3)."""
        ...


class SynthSource:
    """The synthetic sky: every number is another sky."""

    name = "synth"

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self.seed = seed
        self.size = size

    def clip(self, index: int, frames: int, stride: int) -> NDArray[np.uint8]:
        """Render clip `index`."""
        return sky_clip(self.seed, frames, self.size, index=index, stride=stride)


def open_source(data: str, run: Run) -> ClipSource:
    """Open `synth` or a folder of videos."""
    if data == "synth":
        return SynthSource(run.seed, run.data.size)
    raise NotImplementedError(data)
