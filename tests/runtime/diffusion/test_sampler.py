"""Samplers on a process whose answer is known: data drawn from one Gaussian per pixel."""

import numpy as np
import pytest

from lvdm_engines.manifest import ScheduleFacts
from lvdm_rt.diffusion.sampler import SAMPLERS, Process
from lvdm_rt.diffusion.sampler import ddim as ddim_steps
from lvdm_rt.diffusion.schedule import ddim_timesteps, make_schedule

SCHEDULE = make_schedule("sqrt-linear", 1000, 0.0015, 0.0155)
MEAN, STD = 2.0, 0.5


def exact_eps(x, t):
    """The best prediction of the noise in x where x_0 is normal with MEAN and STD."""
    a = float(SCHEDULE.alpha_bar[t])
    return ((1 - a) ** 0.5 * (x - a**0.5 * MEAN) / (a * STD**2 + 1 - a)).astype(np.float32)


def noise_of(seed, shape):
    return lambda i: np.random.default_rng((seed, i)).standard_normal(shape, dtype=np.float32)


def process(**changes):
    shape = (2, 4, 5, 8, 8)
    settings = {"eps": exact_eps, "schedule": SCHEDULE, "noise": noise_of(1, shape)}
    return Process(**(settings | changes)), noise_of(2, shape)(0)


def sampled(name, p, x, steps, eta=0.0):
    sampler = SAMPLERS[name]
    return sampler.run(p, x, sampler.timesteps(SCHEDULE, steps), eta)


def last(steps):
    *_, x = steps
    return x


@pytest.mark.parametrize(
    ("name", "steps", "eta"),
    [("ddpm", 1000, 0.0), ("ddim", 50, 1.0), ("ddim", 50, 0.0), ("dpmpp_2m", 15, 0.0)],
)
def test_samples_follow_the_distribution_of_the_data(name, steps, eta):
    x = last(sampled(name, *process(), steps, eta))
    assert x.dtype == np.float32
    assert abs(x.mean() - MEAN) < 0.05  # 2560 pixels: five standard errors
    assert abs(x.std() - STD) < 0.08  # 50 ancestral steps lose some of the spread


def exact_flow(x_t):
    """Where the noise-free reverse process ends: the same quantile of the data."""
    a = float(SCHEDULE.alpha_bar[-1])
    return MEAN + STD * (x_t - a**0.5 * MEAN) / (a * STD**2 + 1 - a) ** 0.5


def test_the_second_order_solver_is_closer_with_15_steps_than_ddim_with_50():
    p, x_t = process()
    fast = np.abs(last(sampled("dpmpp_2m", p, x_t, 15)) - exact_flow(x_t)).max()
    slow = np.abs(last(sampled("ddim", p, x_t, 50, 0.0)) - exact_flow(x_t)).max()
    assert fast < slow


def test_more_steps_bring_the_second_order_solver_closer():
    p, x_t = process()
    errors = [
        np.abs(last(sampled("dpmpp_2m", p, x_t, s)) - exact_flow(x_t)).max() for s in (16, 32, 64)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize(("steps", "calls"), [(50, 50), (30, 31), (1, 1)])
def test_ddim_takes_one_call_per_timestep(steps, calls):
    seen = []
    p, x_t = process(eps=lambda x, t: seen.append(t) or exact_eps(x, t))
    assert len(list(sampled("ddim", p, x_t, steps, 0.0))) == calls
    assert seen == ddim_timesteps(SCHEDULE, steps).tolist()


def test_noise_free_sampling_draws_no_noise():
    def refuse(i):
        raise AssertionError

    p, x_t = process(noise=refuse)
    last(sampled("ddim", p, x_t, 5, 0.0))
    last(sampled("dpmpp_2m", p, x_t, 5))


@pytest.mark.parametrize(("name", "steps"), [("ddpm", 1000), ("dpmpp_2m", 5)])
def test_given_frames_are_written_before_every_call(name, steps):
    seen = []

    def eps(x, t):
        seen.append(float(x[0, 0, 0, 0, 0]))
        return exact_eps(x, t)

    def given(x):
        x = x.copy()
        x[:, :, 0] = 7
        return x

    last(sampled(name, *process(eps=eps, given=given), steps))
    assert set(seen) == {7.0}


@pytest.mark.parametrize(("name", "steps"), [("ddpm", 1000), ("ddim", 5), ("dpmpp_2m", 5)])
def test_a_sampler_leaves_its_start_alone(name, steps):
    p, x_t = process()
    before = x_t.copy()
    last(sampled(name, p, x_t, steps, 1.0))
    np.testing.assert_array_equal(x_t, before)


def test_closing_a_sampler_stops_it():
    seen = []
    p, x_t = process(eps=lambda x, t: seen.append(t) or exact_eps(x, t))
    steps = sampled("ddpm", p, x_t, 1000)
    next(steps)
    steps.close()
    assert seen == [999]


def test_ddim_ends_in_the_predicted_data_where_the_official_end_leaves_noise():
    # a network that knows the data: all zero, so x is nothing but noise
    zero_data = process(eps=lambda x, t: x / (1 - float(SCHEDULE.alpha_bar[t])) ** 0.5)
    assert np.abs(last(sampled("ddim", *zero_data, 50, 1.0))).max() < 1e-5
    left = last(ddim_steps(*zero_data, ddim_timesteps(SCHEDULE, 50), 1.0, official_end=True))
    assert left.std() == pytest.approx((1 - float(SCHEDULE.alpha_bar[0])) ** 0.5, rel=0.1)


@pytest.mark.parametrize("betas", [(1, 1e-7, 1e-7), (20, 0.9, 0.99), (1000, 1e-7, 0.09)])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_widest_schedules_that_a_manifest_may_name_are_sampled(name, betas):
    ScheduleFacts("linear", *betas)
    schedule = make_schedule("linear", *betas)
    p, x = process(schedule=schedule, eps=lambda x, _: np.zeros_like(x))
    sampler = SAMPLERS[name]
    t = sampler.timesteps(schedule, min(8, betas[0]))
    assert np.isfinite(last(sampler.run(p, x, t, 1.0))).all()
