from contextlib import closing

import numpy as np
import pytest
from toy_arrays import videos_of

from lvdm_engines.errors import OptionsError
from lvdm_rt import GenerateOptions
from lvdm_rt.decoding.detail_fade import DetailFade, fade_out


@pytest.fixture
def given():
    """Frames with detail that the autoencoder of blocks cannot keep."""
    return np.random.default_rng(0).integers(60, 180, (16, 16, 16, 3), np.uint8)


def video(pipeline, given, **options):
    options = GenerateOptions(frames=24, **options)
    return np.concatenate(list(pipeline.stream(options, condition=given))).astype(np.float32)


def test_weights_start_near_one_fall_all_the_way_and_end_near_zero():
    weights = fade_out(16)
    assert weights[0] > 0.99
    assert weights[-1] < 0.01
    assert (np.diff(weights) < 0).all()
    assert fade_out(0).size == 0


def test_what_was_lost_comes_back_less_and_less_across_chunks():
    given, decoded = np.full((1, 1, 3), 100, np.uint8), np.full((1, 1, 3), 60, np.uint8)
    fade, frames = DetailFade(given, 4), np.full((6, 1, 1, 3), 200, np.uint8)
    fade.start(decoded)
    parts = [fade.apply(frames[:3]), fade.apply(frames[3:5]), fade.apply(frames[5:])]
    lifted = np.concatenate(parts)[:, 0, 0, 0].astype(float) - 200
    np.testing.assert_allclose(lifted[:4], 40 * fade_out(4), atol=1)
    assert lifted[4:].tolist() == [0, 0]


def test_small_corrections_fade_pixel_by_pixel_and_not_all_in_one_frame():
    given = np.full((64, 64, 3), 101, np.uint8)
    fade = DetailFade(given, 16)
    fade.start(given - 1)
    means = fade.apply(np.full((16, 64, 64, 3), 100, np.uint8)).mean(axis=(1, 2, 3)) - 100
    np.testing.assert_allclose(means, fade_out(16), atol=0.04)  # 4,096 thresholds


def test_a_long_fade_costs_no_more_memory_than_the_video():
    assert len(fade_out(10_000_000, 6)) == 6


def test_pixels_stay_pixels():
    fade = DetailFade(np.full((1, 1, 3), 255, np.uint8), 4)
    fade.start(np.zeros((1, 1, 3), np.uint8))
    assert (fade.apply(np.full((4, 1, 1, 3), 250, np.uint8))[:2] == 255).all()


def test_a_continued_video_starts_where_its_condition_ends(pipeline, given):
    raw = video(pipeline, given, fade=0)
    faded = video(pipeline, given)
    assert np.abs(raw[0] - given[-1]).mean() > 20  # the autoencoder keeps no detail
    known = pipeline.encode(given)
    latents = [
        c.latents for c in pipeline.sample_latents(GenerateOptions(frames=24), condition=given)
    ]
    joint = np.concatenate(list(pipeline.decode(np.concatenate([known[:, -2:], *latents], axis=1))))
    np.testing.assert_array_equal(raw, joint[8 : 8 + 24])
    lost = given[-1] - joint[7].astype(np.float32)
    expected = np.clip(raw[:16] + fade_out(16)[:, None, None, None] * lost, 0, 255)
    np.testing.assert_allclose(faded[:16], expected, atol=1)
    np.testing.assert_array_equal(faded[16:], raw[16:])


def test_every_video_of_a_batch_is_handed_over(pipeline, given):
    options = GenerateOptions(frames=24, videos=2)
    for number, frames in videos_of(pipeline, options, condition=given).items():
        alone = video(pipeline, given, first_video=number)
        assert np.abs(frames - alone).max() <= 1


def test_windows_that_share_nothing_have_nothing_to_hand_over(pipeline, given):
    assert pipeline.settings(GenerateOptions(overlap=0)).fade == 0
    with pytest.raises(OptionsError, match="fade 16 with overlap 0"):
        video(pipeline, given, overlap=0, fade=16)


def test_an_interrupted_run_may_go_on_with_another_fade(pipeline, given, tmp_path):
    whole = video(pipeline, given, fade=0)
    with closing(
        pipeline.stream(GenerateOptions(frames=24), condition=given, work=tmp_path / "work")
    ) as stream:
        next(stream)
    options = GenerateOptions(frames=24, fade=0)
    again = pipeline.stream(options, condition=given, work=tmp_path / "work", resume=True)
    np.testing.assert_array_equal(np.concatenate(list(again)), whole)
