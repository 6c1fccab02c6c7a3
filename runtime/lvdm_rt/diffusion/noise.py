"""Gaussian noise as a pure function of where it is used.

    noise(seed, video, stage, clip, draw) = standard_normal(float32) of numpy's
        Generator(Philox(key=[seed, video], counter=[0, draw, clip, stage]))

Philox-4x64 is counter based: the lowest counter word counts inside one draw, the other three name
the draw, so no two draws share random bits and none depends on how clips are batched, ordered,
resumed or spread over workers.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Stage(IntEnum):
    """What a clip is for; the numbers are part of the noise function and never change."""

    PREDICT = 0
    INFILL = 1
    SHORT = 2
    REFINE = 3

    def __str__(self) -> str:
        return self.name.lower()


PERTURB = 0  # draw of the noise that perturbs a clip's condition
START = 1  # draw of x_T
FIRST_STEP = 2  # draw of sampler step i is FIRST_STEP + i


class Site(NamedTuple):
    """One clip of one video, the owner of a series of draws."""

    video: int
    stage: Stage
    clip: int


NoiseSource = Callable[[Site, int, tuple[int, ...]], Array]
"""(site, draw, shape of one row) -> standard normal float32."""


def philox(seed: int) -> NoiseSource:
    """Return the noise source of `seed` (0 to 2^64 - 1), as defined above."""

    def source(site: Site, draw: int, shape: tuple[int, ...]) -> Array:
        key = np.array([seed, site.video], np.uint64)
        counter = np.array([0, draw, site.clip, site.stage], np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        return generator.standard_normal(shape, dtype=np.float32)

    return source


def draw_rows(
    source: NoiseSource, sites: Iterable[Site], draw: int, shape: tuple[int, ...]
) -> Array:
    """Stack one draw for each site: (b, *shape)."""
    return np.stack([source(site, draw, shape) for site in sites])
