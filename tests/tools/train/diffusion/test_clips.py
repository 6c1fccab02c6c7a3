import dataclasses

import numpy as np
import pytest

from lvdm_rt.diffusion.schedule import make_schedule
from lvdm_tools.train.config import ClipKind
from lvdm_tools.train.diffusion.clips import ClipMaker, given
from lvdm_tools.train.diffusion.latents import encode_sequence

KINDS = (
    ClipKind("predict", 4, 1.0, stride=4),
    ClipKind("interpolate", 5, 1.0),
    ClipKind("unconditional", 4, 1.0, stride=4),
    ClipKind("unconditional", 5, 1.0),
)


@pytest.fixture
def maker():
    # every value says its place in time
    sequences = np.zeros((3, 2, 13, 2, 2), np.float32) + np.arange(13)[:, None, None]
    schedule = make_schedule("sqrt-linear", 1000, 0.0015, 0.0155)
    return ClipMaker(sequences.astype(np.float32), KINDS, schedule, noise_levels=250, seed=5)


@pytest.mark.parametrize(
    ("kind", "mask"), [(KINDS[0], [1, 0, 0, 0]), (KINDS[1], [1, 0, 0, 0, 1]), (KINDS[3], [0] * 5)]
)
def test_each_kind_of_clip_is_given_its_own_frames(kind, mask):
    assert given(kind).tolist() == mask


def test_a_clip_is_cut_at_its_kinds_stride(maker):
    rng = np.random.default_rng(0)
    times = maker.cut(KINDS[0], rng)[0][0, :, 0, 0]
    assert times.tolist() == [0, 4, 8, 12]
    assert np.diff(maker.cut(KINDS[1], rng)[0][0, :, 0, 0]).tolist() == [1] * 4


def test_clips_of_a_step_have_one_length_and_all_kinds_occur(maker):
    seen = set()
    for step in range(40):
        examples = [maker.example(step, item) for item in range(6)]
        assert len({e.x.shape for e in examples}) == 1
        seen |= {(e.x.shape[1], tuple(e.mask)) for e in examples}
    assert seen == {(k.latents, tuple(given(k))) for k in KINDS}


def test_an_example_is_a_function_of_seed_step_and_item_only(maker):
    first, again, other = maker.example(3, 1), maker.example(3, 1), maker.example(3, 2)
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.eps, other.eps)


def test_given_frames_are_perturbed_to_the_level_that_the_network_is_told(maker):
    z_0 = np.full((2, 5, 64, 64), 3.0, np.float32)
    for trial in range(5):
        example = maker.noised(z_0, given(KINDS[1]), np.random.default_rng(trial))
        alpha_bar = maker.schedule.alpha_bar
        assert 0 <= example.noise_level < 250
        for frame, level in ((0, example.noise_level), (2, example.timestep)):
            x = example.x[:, frame]
            # 8,192 draws: the mean is known to about 1 %
            assert x.mean() == pytest.approx(3 * alpha_bar[level] ** 0.5, abs=0.05)
            assert x.std() == pytest.approx((1 - alpha_bar[level]) ** 0.5, rel=0.05, abs=1e-6)


def test_unconditional_clips_have_no_noise_level(maker):
    example = maker.noised(
        np.zeros((2, 5, 2, 2), np.float32), np.zeros(5), np.random.default_rng(0)
    )
    assert example.noise_level == -1


@pytest.mark.parametrize("frames", [8, 16, 20, 36])
def test_windowed_encoding_keeps_every_latent_once_and_in_order(frames):
    clip = (
        np.zeros((frames, 2, 2, 3), np.uint8)
        + np.arange(frames, dtype=np.uint8)[:, None, None, None]
    )

    def mean(x):
        return x[:, :, ::4]  # the first frame of each four stands for the latent

    found = encode_sequence(clip, window=16, per_latent=4, mean=mean)[0, :, 0, 0]
    assert ((found + 1) * 127.5).round().tolist() == list(range(0, frames, 4))


def test_a_share_of_conditions_is_given_clean_and_says_so(maker):
    maker = dataclasses.replace(maker, clean_conditions=0.5)
    z_0, mask = np.full((2, 5, 2, 2), 3.0, np.float32), given(KINDS[1])
    clean = 0
    for trial in range(400):
        example = maker.noised(z_0, mask, np.random.default_rng(trial))
        untouched = np.array_equal(example.x[:, mask > 0], z_0[:, mask > 0])
        assert untouched == (example.noise_level == -1)
        clean += untouched
    assert clean == pytest.approx(200, abs=40)  # four standard deviations
