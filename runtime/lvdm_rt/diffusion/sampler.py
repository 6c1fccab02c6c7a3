"""Samplers of the reverse process, as generators: each step yields the next x.

A new one is a function like those below and a row in `SAMPLERS`. They know a function for eps, a
schedule, a source of noise and what is given; nothing of networks, files or progress. All arrays
are (b, c, t, h, w) float32. Timesteps come in the order in which they are visited, descending.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.diffusion.schedule import (
    Schedule,
    Timesteps,
    all_timesteps,
    ddim_tables,
    ddim_timesteps,
    few_timesteps,
    karras_timesteps,
    trailing_timesteps,
)

Array = NDArray[np.float32]


def nothing_given(x: Array) -> Array:
    """Return x as it is: no frame is given."""
    return x


@dataclass(frozen=True)
class Process:
    """What every sampler needs.

    `eps(x, t)` predicts the noise in x at timestep t; `noise(i)` is standard normal, shaped like
    x, for step i; `given(x)` writes the given frames into x and is applied before each call of
    `eps`; the update then continues from that overwritten x, as the official code does.
    """

    eps: Callable[[Array, int], Array]
    schedule: Schedule
    noise: Callable[[int], Array]
    given: Callable[[Array], Array] = nothing_given


def ddpm(process: Process, x: Array, timesteps: Timesteps) -> Iterator[Array]:
    """Ancestral sampling over every trained timestep (Ho et al. 2020, algorithm 2).

    mean = sqrt(a_prev) beta / (1 - a) x_0 + sqrt(alpha) (1 - a_prev) / (1 - a) x, and variance
    beta (1 - a_prev) / (1 - a), where a is alpha_bar and x_0 = sqrt(1/a) x - sqrt(1/a - 1) eps.
    """
    beta, a = process.schedule.beta, process.schedule.alpha_bar
    a_prev = np.concatenate([[1.0], a[:-1]])
    to_x0 = a_prev**0.5 * beta / (1 - a)
    to_x = (1 - beta) ** 0.5 * (1 - a_prev) / (1 - a)
    std = np.maximum(beta * (1 - a_prev) / (1 - a), 1e-20) ** 0.5
    for i, t in enumerate(timesteps.tolist()):
        x = process.given(x)
        eps = process.eps(x, t)
        x_0 = float(1 / a[t]) ** 0.5 * x - float(1 / a[t] - 1) ** 0.5 * eps
        x = float(to_x0[t]) * x_0 + float(to_x[t]) * x
        if t > 0:
            x = x + float(std[t]) * process.noise(i)
        yield x


def ddim(
    process: Process, x: Array, timesteps: Timesteps, eta: float, *, official_end: bool = False
) -> Iterator[Array]:
    """DDIM (Song et al. 2021, eq. 12); eta 0 is deterministic, 1 as noisy as `ddpm`.

    x_prev = sqrt(a_prev) x_0 + sqrt(1 - a_prev - sigma^2) eps + sigma noise. The last step ends in
    x_0 itself; the official code (`official_end`) leaves it noise of level sqrt(1 - alpha_bar_0),
    which a decoder shows as flicker.
    """
    tables = ddim_tables(process.schedule, timesteps, eta)
    for i, (t, *row) in enumerate(zip(timesteps, *tables, strict=True)):
        a, a_prev, sigma = map(float, row)
        x = process.given(x)
        eps = process.eps(x, int(t))
        x_0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
        if i + 1 == len(timesteps) and not official_end:
            yield x_0
            return
        x = a_prev**0.5 * x_0 + max(1 - a_prev - sigma**2, 0.0) ** 0.5 * eps
        if sigma > 0:
            x = x + sigma * process.noise(i)
        yield x


def dpmpp_2m(process: Process, x: Array, timesteps: Timesteps) -> Iterator[Array]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): deterministic, second order, data prediction.

    With lambda = -log sigma, h its increase in this step and r = h_previous / h:
    D = (1 + 1 / 2r) x_0 - 1 / 2r x_0_previous and x = (s_next / s) x - a_next expm1(-h) D, where
    (a, s) are sqrt(alpha_bar), sqrt(1 - alpha_bar). The last step goes to sigma = 0: x = x_0.
    """
    a_bar = process.schedule.alpha_bar[timesteps]
    lam = 0.5 * np.log(a_bar / (1 - a_bar))
    h = np.diff(lam)
    signal, spread = np.sqrt(a_bar).astype(np.float32), np.sqrt(1 - a_bar).astype(np.float32)
    shrink = np.expm1(-h).astype(np.float32)
    x_0 = x
    for i, t in enumerate(timesteps):
        x = process.given(x)
        last_x_0, x_0 = x_0, (x - spread[i] * process.eps(x, int(t))) / signal[i]
        if i + 1 == len(timesteps):
            yield x_0
            return
        k = np.float32(
            h[i] / (2 * h[i - 1]) if i > 0 else 0
        )  # 1 / 2r; the first step is first order
        d = x_0 + k * (x_0 - last_x_0)
        x = spread[i + 1] / spread[i] * x - signal[i + 1] * shrink[i] * d
        yield x


@dataclass(frozen=True)
class Sampler:
    """One way through the reverse process.

    `timesteps(schedule, steps)` are those it visits, descending: as many network calls per clip.
    `run(process, x, timesteps, eta)` yields x after each.
    """

    timesteps: Callable[[Schedule, int], Timesteps]
    run: Callable[[Process, Array, Timesteps, float], Iterator[Array]]


def _chosen(usual: Callable[[Schedule, int], Timesteps]) -> Callable[[Schedule, int], Timesteps]:
    """Take a sampler's usual timesteps, or trailing ones where only the last is pure noise."""

    def timesteps(schedule: Schedule, steps: int) -> Timesteps:
        return (trailing_timesteps if schedule.zero_snr else usual)(schedule, steps)

    return timesteps


SAMPLERS = {
    "ddpm": Sampler(all_timesteps, lambda process, x, t, _: ddpm(process, x, t)),
    "ddim": Sampler(_chosen(ddim_timesteps), ddim),
    "dpmpp_2m": Sampler(
        _chosen(karras_timesteps), lambda process, x, t, _: dpmpp_2m(process, x, t)
    ),
    # DDIM without noise at the timesteps that a student learnt (`lvdm-tools train distill`)
    "distilled": Sampler(few_timesteps, lambda process, x, t, _: ddim(process, x, t, 0.0)),
}
