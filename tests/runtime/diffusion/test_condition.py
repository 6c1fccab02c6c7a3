import numpy as np
import pytest

from lvdm_rt.diffusion.condition import overwrite, perturb, place, plan_mask
from lvdm_rt.diffusion.guidance import guided
from lvdm_rt.diffusion.schedule import make_schedule

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


def test_a_mask_is_one_where_frames_are_given():
    np.testing.assert_array_equal(plan_mask(2, 5, [0, 4]), [[1, 0, 0, 0, 1]] * 2)
    assert plan_mask(1, 4, []).sum() == 0


def test_perturbing_mixes_latents_and_noise_as_the_forward_process_does():
    schedule = make_schedule("sqrt-linear", 1000, 0.0015, 0.0155)
    z, eps = normal(1, 2, 1, 3, 3), normal(1, 2, 1, 3, 3)
    z_s = perturb(z, 100, eps, schedule)
    a = schedule.alpha_bar[100]
    assert z_s.dtype == np.float32
    np.testing.assert_allclose(z_s, a**0.5 * z + (1 - a) ** 0.5 * eps, rtol=1e-6, atol=1e-6)


def test_given_frames_replace_those_of_x_and_nothing_else():
    x, frames = normal(2, 3, 5, 4, 4), normal(2, 3, 2, 4, 4)
    before = x.copy()
    out = overwrite(x, place(frames, 5, [0, 4]), plan_mask(2, 5, [0, 4]))
    np.testing.assert_array_equal(out[:, :, [0, 4]], frames)
    np.testing.assert_array_equal(out[:, :, 1:4], x[:, :, 1:4])
    np.testing.assert_array_equal(x, before)


class Recorder:
    """A denoiser that keeps its feeds; eps = mask sum + level + x."""

    def __init__(self):
        self.feeds = []

    def __call__(self, feeds):
        self.feeds.append(feeds)
        told = feeds["mask"].sum(axis=1) + feeds["noise_level"]
        return feeds["latents"] + told[:, None, None, None, None].astype(np.float32)


def test_guidance_pushes_away_from_the_unconditional_prediction_in_one_call():
    call, x = Recorder(), normal(2, 1, 4, 2, 2)
    eps = guided(call, plan_mask(2, 4, [0]), 100, 0.5)(x, 17)
    (feeds,) = call.feeds
    np.testing.assert_array_equal(feeds["latents"], np.concatenate([x, x]))
    np.testing.assert_array_equal(feeds["mask"][:, 0], [1, 1, 0, 0])
    np.testing.assert_array_equal(feeds["noise_level"], [100, 100, -1, -1])
    np.testing.assert_array_equal(feeds["timestep"], [17] * 4)
    np.testing.assert_allclose(eps, 1.5 * (x + 101) - 0.5 * (x - 1), rtol=1e-5)


@pytest.mark.parametrize(("given", "weight"), [([0], 0.0), ([], 0.5)])
def test_guidance_is_skipped_where_it_has_no_effect(given, weight):
    call, x = Recorder(), normal(2, 1, 4, 2, 2)
    eps = guided(call, plan_mask(2, 4, given), 100, weight)(x, 17)
    (feeds,) = call.feeds
    assert len(feeds["latents"]) == 2
    np.testing.assert_array_equal(feeds["noise_level"], [100 if given else -1] * 2)
    np.testing.assert_array_equal(eps, x + (101 if given else -1))


def test_only_conditioned_rows_are_doubled():
    call, x = Recorder(), normal(2, 1, 4, 2, 2)
    mask = plan_mask(2, 4, [])
    mask[1, 0] = 1
    eps = guided(call, mask, 9, 1.0)(x, 17)
    (feeds,) = call.feeds
    np.testing.assert_array_equal(feeds["latents"], np.concatenate([x, x[1:]]))
    np.testing.assert_array_equal(eps[0], x[0] - 1)
    np.testing.assert_allclose(eps[1], 2 * (x[1] + 10) - (x[1] - 1), rtol=1e-5)
