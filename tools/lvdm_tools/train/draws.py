"""Random numbers of a run: every draw is a pure function of (seed, stream, step, item).

A counter-based generator per item makes batches independent of the batch's order, of processes
and of interruptions: a resumed run draws what the uninterrupted one would have drawn.
"""

from enum import IntEnum

import numpy as np


class DrawStream(IntEnum):
    """What a draw is for; streams never share numbers."""

    WEIGHTS = 0
    CLIP = 1
    NOISE = 2
    KIND = 3
    VALIDATION = 4
    SEQUENCE = 5
    PREVIEW = 6
    CROP = 7
    CAPTION = 8


def generator(seed: int, stream: DrawStream, step: int = 0, item: int = 0) -> np.random.Generator:
    """Open the generator of one item of one step."""
    key = np.array([seed, stream << 56 | item << 40 | step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
