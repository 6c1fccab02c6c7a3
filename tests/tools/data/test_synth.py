import numpy as np
import pytest

from lvdm_engines.errors import ConfigError
from lvdm_tools.data.synth import sky_clip


def test_the_same_arguments_give_the_same_clip():
    first = sky_clip(3, 4, 32, index=5)
    assert first.shape == (4, 32, 32, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, sky_clip(3, 4, 32, index=5))


def test_seed_and_index_each_change_the_sky():
    clip = sky_clip(3, 1, 32, index=5).astype(int)
    assert np.abs(clip - sky_clip(4, 1, 32, index=5)).mean() > 3
    assert np.abs(clip - sky_clip(3, 1, 32, index=6)).mean() > 3


@pytest.mark.parametrize("start", [0, 37, 1990])
def test_a_short_clip_is_a_cut_of_a_long_one(start):
    long = sky_clip(1, 70, 16, start=start)
    short = sky_clip(1, 9, 16, start=start + 5, stride=7)
    difference = np.abs(long[5:65:7].astype(int) - short)
    assert difference.max() <= 1  # blocks of another length may round differently


def test_another_size_shows_the_same_sky():
    small = sky_clip(2, 2, 32).astype(float)
    large = sky_clip(2, 2, 128).astype(float)
    shrunk = large.reshape(2, 32, 4, 32, 4, 3).mean((2, 4))
    assert np.abs(small - shrunk).mean() < 5


def test_width_may_differ_from_height():
    assert sky_clip(0, 2, (16, 24)).shape == (2, 16, 24, 3)


def test_clouds_move_a_little_between_frames_and_a_lot_over_a_clip():
    step, far = [], []
    for index in range(6):
        clip = sky_clip(0, 65, 32, index=index).astype(float)
        step.append(np.abs(clip[1:] - clip[:-1]).mean())
        far.append(np.abs(clip[64] - clip[0]).mean())
    assert 0.1 < np.mean(step) < 4
    assert np.mean(far) > 6 * np.mean(step)


def test_a_long_clip_keeps_its_contrast():
    spread = sky_clip(0, 9, 32, stride=250).std((1, 2)).mean(-1)  # frames 0 .. 2000
    assert spread.min() > 6


def test_skies_are_smooth_at_the_scale_of_a_pixel():
    clips = np.stack([sky_clip(0, 1, 64, index=i)[0] for i in range(8)]).mean(-1)
    power = np.abs(np.fft.fft2(clips * np.hanning(64)[:, None] * np.hanning(64))) ** 2
    radius = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    power[:, 0, 0] = 0
    assert power[:, radius > 0.2].sum() < 0.003 * power.sum()


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"frames": -2}, "frames is -2"),
        ({"size": 4}, "at least 8"),
        ({"stride": 0}, "stride is 0"),
        ({"start": -3}, "start is -3"),
    ],
)
def test_impossible_clips_are_refused(keywords, named):
    arguments = {"seed": 0, "frames": 1, "size": 16} | keywords
    with pytest.raises(ConfigError, match=named):
        sky_clip(**arguments)
