"""Sampling from pure noise: schedules that end without signal, with a network that gives v."""

import numpy as np
import pytest

from lvdm_engines.manifest import ScheduleFacts
from lvdm_rt.diffusion.sampler import SAMPLERS, Process
from lvdm_rt.diffusion.schedule import make_schedule

SCHEDULE = make_schedule("sqrt-linear", 1000, 0.00085, 0.012, zero_snr=True)
MEAN, STD = 2.0, 0.5
SHAPE = (2, 4, 5, 8, 8)


def eps_of_v(x, t):
    """What a graph gives: the best v, where x_0 is normal with MEAN and STD, turned into eps."""
    a = np.float32(SCHEDULE.alpha_bar[t])
    signal, noise = np.sqrt(a), np.sqrt(1 - a)
    spread = a * STD**2 + 1 - a
    x_0 = MEAN + signal * STD**2 / spread * (x - signal * MEAN)
    best_eps = noise / spread * (x - signal * MEAN)
    v = (signal * best_eps - noise * x_0).astype(np.float32)
    return signal * v + noise * x


def sampled(name, steps, eta=0.0):
    seen, rng = [], np.random.default_rng(0)

    def eps(x, t):
        seen.append(t)
        return eps_of_v(x, t)

    def noise(_):
        return rng.standard_normal(SHAPE, dtype=np.float32)

    sampler, start = SAMPLERS[name], noise(0)
    timesteps = sampler.timesteps(SCHEDULE, steps)
    *_, x = sampler.run(Process(eps, SCHEDULE, noise), start, timesteps, eta)
    return x, seen


@pytest.mark.parametrize(
    ("name", "steps", "eta"),
    [("ddpm", 1000, 0.0), ("ddim", 50, 1.0), ("ddim", 50, 0.0), ("dpmpp_2m", 30, 0.0)],
)
def test_samples_from_pure_noise_follow_the_data(name, steps, eta):
    x, seen = sampled(name, steps, eta)
    assert x.dtype == np.float32
    assert abs(x.mean() - MEAN) < 0.05
    assert abs(x.std() - STD) < 0.08
    assert seen[0] == 999
    assert len(seen) == steps


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m"])
def test_one_step_from_pure_noise_gives_the_mean_and_not_infinity(name):
    x, seen = sampled(name, 1)
    assert seen == [999]
    assert np.abs(x - MEAN).max() < 0.01


def test_a_schedule_of_one_step_cannot_end_without_signal():
    with pytest.raises(ValueError, match="expected at least two"):
        ScheduleFacts("cosine", 1, 0.1, 0.2, zero_snr=True)
