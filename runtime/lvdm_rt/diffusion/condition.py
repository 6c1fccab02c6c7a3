"""Given frames of a clip: which they are, how they are perturbed, how they enter x.

Pure functions on arrays; shapes as in (b, c, t, h, w) for latents and (b, t) for masks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.diffusion.schedule import Schedule

Array = NDArray[np.float32]


def plan_mask(rows: int, clip: int, given: Sequence[int]) -> Array:
    """Return the mask (rows, clip): 1 at the positions in `given`, else 0."""
    mask = np.zeros((rows, clip), np.float32)
    mask[:, list(given)] = 1.0
    return mask


def perturb(z_0: Array, level: int, eps: Array, schedule: Schedule) -> Array:
    """Return z_s = sqrt(alpha_bar_s) z_0 + sqrt(1 - alpha_bar_s) eps, the perturbed condition.

    Conditional latent perturbation (LVDM, section 3.3): a network that was conditioned on noisy
    latents in training is told the level s and drifts less over a long chain of clips.
    """
    alpha_bar = float(schedule.alpha_bar[level])
    z_s: Array = alpha_bar**0.5 * z_0 + (1.0 - alpha_bar) ** 0.5 * eps
    return z_s


def place(frames: Array, clip: int, given: Sequence[int]) -> Array:
    """Lay frames (b, c, n, h, w) at the n given positions of an empty clip (b, c, clip, h, w)."""
    b, c, _, h, w = frames.shape
    z = np.zeros((b, c, clip, h, w), np.float32)
    z[:, :, list(given)] = frames
    return z


def overwrite(x: Array, z: Array, mask: Array) -> Array:
    """Return x (1 - m) + z m: the given frames of z written into x."""
    m = mask[:, None, :, None, None]  # (b, 1, t, 1, 1)
    return np.where(m > 0, z, x)
