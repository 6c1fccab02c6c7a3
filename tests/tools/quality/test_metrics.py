import math

import numpy as np
import pytest

from lvdm_engines.errors import ConfigError
from lvdm_tools.quality import metrics


def plain(value, shape=(2, 3, 16, 16, 3)):
    return np.full(shape, value, np.uint8)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 24, 32, 3), np.uint8)


@pytest.mark.parametrize("error", [1, 16, 255])
def test_psnr_of_a_constant_error_is_that_of_the_formula(error):
    assert metrics.psnr(plain(error), plain(0)) == pytest.approx(20 * math.log10(255 / error))


def test_psnr_averages_over_clips():
    pair = np.concatenate([plain(10), plain(20)])
    expected = 20 * math.log10(255) - 10 * math.log10(10) - 10 * math.log10(20)
    assert metrics.psnr(pair, plain(0, pair.shape)) == pytest.approx(expected)


def test_equal_clips_have_the_best_values(noise):
    assert metrics.psnr(noise, noise) == math.inf
    assert metrics.ssim(noise, noise) == pytest.approx(1, abs=1e-6)


def test_the_colour_error_sees_a_purple_that_greys_where_psnr_does_not():
    purple, grey = (
        np.full((1, 2, 16, 16, 3), colour, np.uint8) for colour in ([128, 116, 140], 122)
    )
    assert metrics.colour_error(purple, purple) == 0
    darker = purple - np.uint8(12)
    assert metrics.psnr(grey, purple) > metrics.psnr(darker, purple)
    assert metrics.colour_error(grey, purple) > 2 * metrics.colour_error(darker, purple)


def test_the_colour_error_is_a_mean_over_pixels(noise):
    other = noise[::-1]
    each = [
        metrics.colour_error(a[None, :1], b[None, :1]) for a, b in zip(noise, other, strict=True)
    ]
    assert metrics.colour_error(noise[:, :1], other[:, :1]) == pytest.approx(np.mean(each))
    # worked by hand from the formulas of CIE 142: white against black is ΔL' alone
    assert metrics.colour_error(plain(255), plain(0)) == pytest.approx(100.0, abs=0.01)


def test_ssim_of_plain_frames_is_its_luminance_term():
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    # the difference of two squares in float32 leaves a variance of about 1e-2, against C2 = 58
    assert metrics.ssim(plain(100), plain(120)) == pytest.approx(expected, abs=1e-3)


def test_ssim_agrees_with_a_direct_sum_over_one_window():
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (1, 1, 11, 11, 3), np.uint8) for _ in range(2))
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2
    values = []
    for channel in range(3):
        x, y = (v[0, 0, :, :, channel].astype(float) for v in (a, b))
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        cov = (window * (x - mx) * (y - my)).sum()
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        top = (2 * mx * my + c1) * (2 * cov + c2)
        values.append(top / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert metrics.ssim(a, b) == pytest.approx(np.mean(values), abs=1e-4)  # float32 inside


def test_ssim_of_a_negative_is_negative(noise):
    assert metrics.ssim(255 - noise, noise) < 0


def test_mean_colour_is_taken_per_channel():
    clips = plain(0)
    clips[..., 1] = 100
    clips[0, ..., 2] = 50
    assert metrics.mean_colour(clips) == (0, 100, 25)


def test_contrast_of_black_and_white_halves_is_half_the_range():
    clips = plain(0)
    clips[:, :, :8] = 255
    assert metrics.contrast(clips) == pytest.approx(127.5, rel=1e-5)
    assert metrics.contrast(plain(7)) == 0


def test_contrast_does_not_count_differences_between_frames():
    clips = plain(0)
    clips[:, 1] = 200
    assert metrics.contrast(clips) == 0


def test_frame_change_of_a_ramp_is_its_step():
    ramp = np.arange(0, 30, 3, dtype=np.uint8)[None, :, None, None, None]
    clips = np.broadcast_to(ramp, (2, 10, 16, 16, 3))
    assert metrics.frame_change(clips) == 3
    assert metrics.frame_change(clips[:, ::-1]) == 3  # and does not wrap around below zero


@pytest.mark.parametrize("exponent", [-1.0, -2.0, -3.0])
def test_spectrum_slope_recovers_the_exponent_of_power_law_noise(exponent):
    rng = np.random.default_rng(2)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64))
    frequency[0, 0] = 1
    spectrum = rng.standard_normal((24, 64, 33)) + 1j * rng.standard_normal((24, 64, 33))
    spectrum *= frequency ** (exponent / 2)
    spectrum[:, 0, 0] = 0
    pictures = np.fft.irfft2(spectrum, (64, 64))
    levels = np.clip(128 + 32 * pictures / pictures.std(), 0, 255).round().astype(np.uint8)
    clips = np.repeat(levels[:, None, :, :, None], 3, axis=-1)
    # rings are wide at low frequencies and the window leaks, hence the tolerance
    assert metrics.spectrum_slope(clips) == pytest.approx(exponent, abs=0.25)


def test_spectrum_slope_of_plain_frames_is_flat():
    assert metrics.spectrum_slope(plain(9, (1, 2, 32, 32, 3))) == pytest.approx(0, abs=1e-9)


def test_continuity_of_real_neighbours_is_one():
    ramp = np.arange(0, 30, 3, dtype=np.uint8)[None, :, None, None, None]
    real = np.broadcast_to(ramp, (2, 10, 16, 16, 3))
    assert metrics.continuity(real[:, 4], real[:, 5], real) == 1
    assert metrics.continuity(real[:, 4], real[:, 7], real) == 3


@pytest.mark.parametrize(
    ("value", "reference", "expected"), [(12, 10, 0.2), (-3, -4, 0.25), (0, 0, 0), (1, 0, math.inf)]
)
def test_relative_difference(value, reference, expected):
    assert metrics.relative_difference(value, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    "clips", [np.zeros((1, 2, 16, 16, 3)), plain(0)[0], plain(0)[..., :1], plain(0)[:0]]
)
def test_what_is_no_clip_is_refused_with_its_shape(clips):
    with pytest.raises(ConfigError, match="expected uint8"):
        metrics.mean_colour(clips)


@pytest.mark.parametrize(
    ("measure", "told"),
    [
        (lambda: metrics.psnr(plain(0), plain(0, (2, 4, 16, 16, 3))), "one shape"),
        (lambda: metrics.ssim(*[plain(0, (1, 1, 8, 16, 3))] * 2), "at least 11×11"),
        (lambda: metrics.frame_change(plain(0, (1, 1, 16, 16, 3))), "two frames or more"),
        (lambda: metrics.continuity(plain(0)[:, 0], plain(1)[:, 0], plain(5)), "stand still"),
    ],
)
def test_what_cannot_be_measured_is_refused(measure, told):
    with pytest.raises(ConfigError, match=told):
        measure()
