import numpy as np
import pytest

from lvdm_engines.errors import ConfigError
from lvdm_tools.data.synth import sky_clip
from lvdm_tools.quality.frechet import FEATURES, LEAST_CLIPS, features, frechet_distance


def gaussian(seed, n, d):
    """Samples whose mean is 0 and whose covariance is the identity, exactly."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


@pytest.fixture(scope="module")
def skies():
    return [
        np.stack([sky_clip(0, 4, 16, index=first + i) for i in range(LEAST_CLIPS)])
        for first in (0, 1000)
    ]


A, B, C = gaussian(0, 50, 2), gaussian(1, 70, 2), gaussian(0, 40, 3) * [1, 1, 0]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (A, A, 0),
        (A, A + np.array([1, 2]), 1 + 4),
        (A * [1, 3], B * [2, 5], 1 + 4),
        (C, C * [1, 2, 1] + [0, 0, 5], 1 + 25),
    ],
    ids=["itself", "shifted", "scaled", "singular covariances"],
)
def test_distance_is_the_squared_difference_of_means_and_of_spreads(a, b, expected):
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-6)


def test_distance_of_rotated_gaussians_agrees_with_the_formula():
    a, b = gaussian(0, 50, 2), gaussian(1, 60, 2) * [1, 3]
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    product = turn @ np.diag([1.0, 9.0]) @ turn.T  # Ca is the identity
    expected = 2 + 10 - 2 * np.sqrt(np.linalg.eigvalsh(product)).sum()
    assert frechet_distance(a, b @ turn.T) == pytest.approx(expected)


def test_fewer_samples_than_dimensions_stay_finite():
    rng = np.random.default_rng(0)
    assert np.isfinite(frechet_distance(rng.random((3, 10)), rng.random((3, 10))))


@pytest.mark.parametrize(("a", "b"), [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,))])
def test_features_that_do_not_fit_are_refused(a, b):
    with pytest.raises(ConfigError, match="expected"):
        frechet_distance(np.zeros(a), np.zeros(b))


def test_the_space_is_pinned():
    # Numbers in reports are comparable only as long as these stay.
    ramp = np.arange(4 * 16 * 16 * 3, dtype=np.uint32).reshape(1, 4, 16, 16, 3) % 251
    placed = features(ramp.astype(np.uint8))
    assert placed.shape == (1, FEATURES)
    np.testing.assert_allclose(placed[0, :3], [0.28354, 0.38401, -0.20223], rtol=1e-4)


def test_real_clips_are_nearer_to_real_clips_than_damaged_ones_are(skies):
    other = skies[1]
    real = features(skies[0])
    damaged = {
        "grey": np.broadcast_to(other.mean((2, 3), keepdims=True), other.shape).astype(np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, other.shape, np.uint8),
        "few": np.tile(other[:4], (LEAST_CLIPS // 4, 1, 1, 1, 1)),
    }
    floor = frechet_distance(features(other), real)
    ratios = {k: frechet_distance(features(v), real) / floor for k, v in damaged.items()}
    assert ratios["grey"] > 10
    assert ratios["noise"] > 10
    assert ratios["few"] > 3


def test_clips_of_any_size_have_a_place():
    for size in (8, 64, 80):
        assert features(np.zeros((1, 4, size, size, 3), np.uint8)).shape == (1, FEATURES)


def test_what_is_no_clip_is_refused():
    with pytest.raises(ConfigError, match="expected uint8"):
        features(np.zeros((2, 3, 8, 8, 3), np.uint8))
