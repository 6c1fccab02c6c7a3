"""A denoiser graph as eps(x, t), guided by its own unconditional prediction."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Call = Callable[[Mapping[str, NDArray[np.generic]]], Array]
"""Run one batch of feeds through a denoiser and return its `eps`."""


def guided(call: Call, mask: Array, level: int, weight: float) -> Callable[[Array, int], Array]:
    """Return eps(x, t) = (1 + w) eps_c - w eps_u, both branches in one batch.

    `mask` (b, t) says what is given; `level` is the noise level s of the given frames, -1 for
    unperturbed ones. Only rows with something given have two branches, and only if w is not 0:
    for the others the branches are equal and the unconditional one is not computed. Both branches
    see the same x, given frames included; the unconditional one has an empty mask and no level.
    """
    conditioned = mask.any(axis=1)
    extra = np.flatnonzero(conditioned) if weight != 0 else np.zeros(0, np.int64)
    masks = np.concatenate([mask, np.zeros_like(mask[extra])])
    levels = np.full(len(masks), -1, np.int64)
    levels[: len(mask)][conditioned] = level

    def eps(x: Array, t: int) -> Array:
        feeds = {
            "latents": np.concatenate([x, x[extra]]) if len(extra) else x,
            "timestep": np.full(len(masks), t, np.int64),
            "mask": masks,
            "noise_level": levels,
        }
        out = call(feeds)
        if not len(extra):
            return out
        e, e_u = out[: len(x)].copy(), out[len(x) :]
        e[extra] = (1 + weight) * e[extra] - weight * e_u
        return e

    return eps
