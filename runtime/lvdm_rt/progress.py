"""How far a run is, and the place where it notices that it should stop."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.background import Stop


class Progress(NamedTuple):
    """How far a run is, over all its videos: sampler steps of clips, and decoded frames."""

    steps: int
    total_steps: int
    frames: int
    total_frames: int


ProgressCallback = Callable[[Progress], None]


class Preview(NamedTuple):
    """What the new latents of one clip seem to become, after a sampler step.

    `pictures` are uint8 (t, h, w, 3), one for each latent, a pixel for each of its places.
    """

    video: int
    stage: str
    clip: int
    pictures: NDArray[np.uint8]


PreviewCallback = Callable[[Sequence[Preview]], None]
"""Is told of all clips of a network call together."""

Estimated = Callable[[Sequence[Any], NDArray[np.float32]], None]
"""Is told of the sites of a batch's clips what their latents (b, c, t, h, w) seem to become."""


class Counter:
    """Counts what several threads do and reports it, one report at a time.

    `estimated` is who wants to know on the way what latents seem to become, None for nobody.
    """

    def __init__(
        self,
        total_steps: int,
        total_frames: int,
        report: ProgressCallback | None,
        estimated: Estimated | None = None,
    ) -> None:
        self.stop = Stop()
        self.estimated = estimated
        self._now = Progress(0, total_steps, 0, total_frames)
        self._report = report
        self._lock = threading.Lock()

    def step(self, clips: int) -> None:
        """Count one sampler step of `clips` clips. Raises Cancelled if the run should stop."""
        self._count(steps=clips, frames=0)

    def decoded(self, frames: int) -> None:
        """Count decoded frames. Raises Cancelled if the run should stop."""
        self._count(steps=0, frames=frames)

    def _count(self, steps: int, frames: int) -> None:
        self.stop.check()
        with self._lock:
            now = self._now
            self._now = now._replace(steps=now.steps + steps, frames=now.frames + frames)
            if self._report is not None:
                self._report(self._now)
