"""Noise schedules: the trained betas and the timesteps at which samplers visit them.

Tables are float64. Knows nothing of networks, latents or options.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
Timesteps = NDArray[np.int64]

COSINE_OFFSET = 8e-3  # s of Nichol & Dhariwal 2021, eq. 17
_FEW = 5  # more network calls than were asked for
KARRAS_RHO = 7.0  # Karras et al. 2022, eq. 5
LEAST_SIGNAL = 2.0**-24  # alpha_bar in place of 0: float32 still finds x_0 in x and eps to 1e-3


@dataclass(frozen=True, eq=False)
class Schedule:
    """The forward process x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps; tables (N,).

    With `zero_snr` it ends in nothing but noise, so sampling has to start at its very end.
    """

    beta: Table
    alpha_bar: Table
    zero_snr: bool = False

    @property
    def steps(self) -> int:
        """N, the number of trained timesteps."""
        return len(self.beta)

    @property
    def sigma(self) -> Table:
        """Noise-to-signal ratio sqrt(1 / alpha_bar - 1) of every timestep, (N,)."""
        ratio: Table = np.sqrt(1.0 / self.alpha_bar - 1.0)
        return ratio


@functools.lru_cache(maxsize=8)
def make_schedule(
    kind: str, steps: int, beta_start: float, beta_end: float, *, zero_snr: bool = False
) -> Schedule:
    """Build the tables of a 'sqrt-linear', 'linear' or 'cosine' schedule of `steps` timesteps.

    'sqrt-linear' is linear in sqrt(beta) (the official code calls it "linear"); 'cosine' is
    Nichol & Dhariwal 2021, eq. 17, and reads neither beta. `zero_snr` rescales it to end in pure
    noise, see `_without_signal`.

    Raises ValueError for another kind.
    """
    beta: Table
    if kind == "sqrt-linear":
        beta = np.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=np.float64) ** 2
    elif kind == "linear":
        beta = np.linspace(beta_start, beta_end, steps, dtype=np.float64)
    elif kind == "cosine":
        u = np.arange(steps + 1, dtype=np.float64) / steps + COSINE_OFFSET
        f = np.cos(u / (1 + COSINE_OFFSET) * np.pi / 2) ** 2
        beta = np.clip(1 - f[1:] / f[:-1], 0, 0.999)
    else:
        raise ValueError(f"got schedule {kind!r}, expected sqrt-linear, linear or cosine")
    alpha_bar = np.cumprod(1.0 - beta, dtype=np.float64)
    return _without_signal(alpha_bar) if zero_snr else Schedule(beta, alpha_bar)


def _without_signal(alpha_bar: Table) -> Schedule:
    """Shift and scale sqrt(alpha_bar) to end at 0 (Lin et al., arXiv 2305.08891, algorithm 1).

    By 0 nothing could be divided by; the end is LEAST_SIGNAL, or half of what is before it.
    """
    root = np.sqrt(alpha_bar)
    alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    alpha_bar[-1] = min(LEAST_SIGNAL, alpha_bar[-2] / 2)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    return Schedule(1.0 - alpha_bar / before, alpha_bar, zero_snr=True)


def all_timesteps(schedule: Schedule, steps: int) -> Timesteps:
    """Every trained timestep, descending, whatever `steps` says."""
    del steps
    return np.arange(schedule.steps - 1, -1, -1, dtype=np.int64)


def ddim_timesteps(schedule: Schedule, steps: int) -> Timesteps:
    """Timesteps of DDIM, descending: range(0, N, N // S) + 1, reversed, as in the official code.

    That holds more than `steps` entries where N % S is not 0, up to half as many again, and where
    there are few it begins far from the noise that sampling begins with. Where it would have other
    than `steps` entries by more than a few, or begin below 3/4 of N, they are spaced evenly from
    N - 1 to 1 instead. Where the last would be N itself, which no network was trained for, it is
    left out.
    """
    trained = schedule.steps
    if trained == 1:
        return np.zeros(1, np.int64)
    official = np.arange(0, trained, trained // steps, dtype=np.int64) + 1
    official = official[official < trained][::-1]
    if len(official) - steps <= _FEW and official[0] >= 0.75 * trained:
        return official
    even: Timesteps = np.unique(np.rint(np.linspace(trained - 1, 1, steps)).astype(np.int64))[::-1]
    return even


def trailing_timesteps(schedule: Schedule, steps: int) -> Timesteps:
    """Descend from N - 1 in `steps` equal strides (Lin et al., arXiv 2305.08891, section 3.3)."""
    ends = np.linspace(schedule.steps, 0, steps, endpoint=False)
    timesteps: Timesteps = np.rint(ends).astype(np.int64) - 1
    return timesteps


def ddim_tables(schedule: Schedule, timesteps: Timesteps, eta: float) -> tuple[Table, Table, Table]:
    """Return alpha, alpha_prev and sigma of each DDIM step, (S,) (Song et al. 2021, eq. 16).

    `timesteps` descend. alpha_prev of the last one is alpha_bar[0], as in the official code.
    """
    alpha = schedule.alpha_bar[timesteps]
    alpha_prev = np.concatenate([alpha[1:], schedule.alpha_bar[:1]])
    sigma = eta * np.sqrt((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev))
    return alpha, alpha_prev, sigma


def karras_timesteps(schedule: Schedule, steps: int, first: int = -1) -> Timesteps:
    """At most `steps` timesteps, descending from `first` (N - 1 unless given) to 0.

    Even in sigma^(1/7) (Karras et al. 2022, eq. 5), each snapped to the nearest trained timestep
    in log sigma, so that the network only sees timesteps it was trained for; repeats are dropped.
    """
    log_sigma = np.log(schedule.sigma)
    low, high = np.exp(log_sigma[[0, first]] / KARRAS_RHO)
    wanted = KARRAS_RHO * np.log(np.linspace(high, low, steps))
    t = np.rint(np.interp(wanted, log_sigma, np.arange(schedule.steps))).astype(np.int64)
    unique: Timesteps = np.unique(t)[::-1]
    return unique


def few_timesteps(schedule: Schedule, steps: int) -> Timesteps:
    """Return those of `karras_timesteps` with one more, without the last, of hardly any noise.

    They are for so few steps that each has to lead somewhere.
    """
    timesteps = karras_timesteps(schedule, steps + 1)
    return timesteps[: max(1, len(timesteps) - 1)]
