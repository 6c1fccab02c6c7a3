"""Samples of a denoiser in training, drawn with the runtime's own samplers."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvdm_export.nets.autoencoder3d import Autoencoder3d
from lvdm_rt.diffusion.sampler import SAMPLERS, Process
from lvdm_rt.diffusion.schedule import Schedule
from lvdm_tools.train.pixels import to_frames

Array = NDArray[np.float32]
Clips = NDArray[np.uint8]
Eps = Callable[[Array, int, Array, int], Array]

_STEPS = 25


def sample(
    eps: Eps,
    z_0: Array,
    mask: Array,
    level: int,
    schedule: Schedule,
    rng: np.random.Generator,
    calls: int | None = None,
) -> Array:
    """Draw clips like z_0 (b, c, t, h, w), of which the frames with mask (t) 1 are given.

    `eps(x, t, mask, level)` is the network; the given frames stay unperturbed, told as `level`. One
    that was distilled takes as many `calls` as it learnt.
    """
    masks = np.repeat(mask[None], len(z_0), axis=0)
    x_t = rng.standard_normal(z_0.shape, np.float32)

    def place(x: Array) -> Array:
        return np.where(mask[:, None, None] > 0, z_0, x).astype(np.float32)

    process = Process(
        eps=lambda x, t: eps(x, t, masks, level),
        schedule=schedule,
        noise=lambda _: rng.standard_normal(z_0.shape, np.float32),
        given=place,
    )
    name, eta = ("ddim", 1.0) if calls is None else ("distilled", 0.0)
    sampler = SAMPLERS[name]
    timesteps = sampler.timesteps(schedule, calls or min(_STEPS, schedule.steps))
    *_, x_0 = sampler.run(process, x_t, timesteps, eta)
    return place(x_0)


def decode(autoencoder: Autoencoder3d, means: Tensor, *, apart: bool) -> Clips:
    """Decode (b, c, t, h, w) to frames; latents that are `apart` in time one by one."""
    steps = [means[:, :, t : t + 1] for t in range(means.shape[2])] if apart else [means]
    with torch.no_grad():
        decoded = [
            to_frames(torch.cat([autoencoder.decode(row[None]) for row in part])) for part in steps
        ]
    return np.concatenate(decoded, axis=1)
