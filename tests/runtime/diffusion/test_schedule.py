import numpy as np
import pytest

from lvdm_rt.diffusion.schedule import (
    ddim_tables,
    ddim_timesteps,
    karras_timesteps,
    make_schedule,
    trailing_timesteps,
)

KINDS = {"linear": "sqrt-linear", "cosine": "cosine"}  # the official names → ours


@pytest.mark.parametrize("index", range(4))
def test_schedules_and_ddim_tables_equal_the_official_ones(golden, index):
    case = golden("schedules")
    wanted = case.config["cases"][index]
    schedule = make_schedule(
        KINDS[wanted["schedule"]], wanted["timesteps"], wanted["linear_start"], wanted["linear_end"]
    )
    t = ddim_timesteps(schedule, wanted["ddim_steps"])
    alpha, alpha_prev, sigma = ddim_tables(schedule, t, wanted["eta"])
    expected = {
        name: case.arrays[f"{name}_{index}"]
        for name in ("betas", "alphas_cumprod", "ddim_t", "ddim_alpha", "ddim_alpha_prev")
    }
    t, alpha, alpha_prev, sigma = t[::-1], alpha[::-1], alpha_prev[::-1], sigma[::-1]
    np.testing.assert_array_equal(t, expected["ddim_t"])
    np.testing.assert_allclose(schedule.beta, expected["betas"], rtol=1e-10)
    np.testing.assert_allclose(schedule.alpha_bar, expected["alphas_cumprod"], rtol=1e-10)
    # The official code keeps alphas (and by them alpha_prev) in float32.
    np.testing.assert_allclose(alpha, expected["ddim_alpha"], rtol=1e-6)
    np.testing.assert_allclose(alpha_prev, expected["ddim_alpha_prev"], rtol=1e-6)
    np.testing.assert_allclose(sigma, case.arrays[f"ddim_sigma_{index}"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trained", [2, 10, 250, 1000])
@pytest.mark.parametrize("steps", [1, 2, 3, 15, 50, 333, 334, 501, 999, 1000])
def test_ddim_makes_about_the_calls_that_are_asked_and_begins_in_the_noise(steps, trained):
    steps = min(steps, trained)
    t = ddim_timesteps(make_schedule("sqrt-linear", trained, 0.0015, 0.0155), steps)
    assert 0.75 * trained <= t[0] + 1 <= trained
    assert t[-1] == 1 or len(t) == 1
    assert (np.diff(t) < 0).all()
    assert abs(len(t) - steps) <= 5


def test_a_schedule_of_one_step_has_one_ddim_timestep():
    assert ddim_timesteps(make_schedule("cosine", 1, 0, 0), 1).tolist() == [0]


@pytest.mark.parametrize("steps", [2, 15, 100, 1000])
def test_few_step_timesteps_fall_from_the_noisiest_to_the_cleanest(steps):
    schedule = make_schedule("sqrt-linear", 1000, 0.0015, 0.0155)
    t = karras_timesteps(schedule, steps)
    assert t[0] == 999
    assert t[-1] == 0
    assert (np.diff(t) < 0).all()
    assert len(t) <= steps


def test_a_single_step_starts_at_pure_noise():
    schedule = make_schedule("sqrt-linear", 1000, 0.0015, 0.0155)
    assert karras_timesteps(schedule, 1).tolist() == [999]


def test_the_linear_kind_is_linear_in_beta():
    schedule = make_schedule("linear", 5, 0.1, 0.5)
    np.testing.assert_allclose(schedule.beta, [0.1, 0.2, 0.3, 0.4, 0.5])


def test_an_unknown_schedule_is_refused_by_name():
    with pytest.raises(ValueError, match="got schedule 'quadratic', expected"):
        make_schedule("quadratic", 10, 0.1, 0.2)


@pytest.mark.parametrize("kind", ["sqrt-linear", "linear", "cosine"])
@pytest.mark.parametrize("steps", [2, 10, 1000])
def test_a_schedule_without_terminal_signal_keeps_its_start_and_falls_to_nothing(kind, steps):
    usual = make_schedule(kind, steps, 0.0015, 0.0155)
    schedule = make_schedule(kind, steps, 0.0015, 0.0155, zero_snr=True)
    assert schedule.alpha_bar[0] == pytest.approx(usual.alpha_bar[0])
    assert 0 < schedule.alpha_bar[-1] <= 2.0**-24
    assert (np.diff(schedule.alpha_bar) < 0).all()
    np.testing.assert_allclose(np.cumprod(1 - schedule.beta), schedule.alpha_bar, rtol=1e-6)
    assert np.isfinite(schedule.sigma).all()


def test_a_rescaled_schedule_is_the_published_one():
    root = np.sqrt(make_schedule("linear", 1000, 0.00085, 0.012).alpha_bar)
    expected = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    found = make_schedule("linear", 1000, 0.00085, 0.012, zero_snr=True).alpha_bar
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=2.0**-24)


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 334, 999, 1000])
def test_trailing_timesteps_are_as_many_as_asked_and_begin_with_the_last(steps):
    t = trailing_timesteps(make_schedule("linear", 1000, 0.00085, 0.012, zero_snr=True), steps)
    assert len(t) == steps
    assert t[0] == 999
    assert (np.diff(t) < 0).all()
    assert t[-1] == round(1000 / steps) - 1
