import numpy as np
import pytest

from lvdm_engines.errors import ConfigError
from lvdm_tools.quality.distances import frechet_distance, kernel_distance


def gaussian(seed, n, d):
    """Samples whose mean is 0 and whose covariance is the identity, exactly."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


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


def recorded():
    """Features whose distances were computed by other programs, see below."""
    rng = np.random.Generator(np.random.Philox(key=16))
    return rng.standard_normal((60, 24)), 1.2 * rng.standard_normal((80, 24)) + 0.3


def test_fréchet_distance_is_the_one_that_other_programs_compute():
    # scipy 1.17.1 by sqrtm, torchmetrics 1.9's FID gives the same up to 1e-14
    assert frechet_distance(*recorded()) == pytest.approx(9.475035139391762, abs=1e-6)


def test_kernel_distance_is_the_one_that_another_program_computes():
    a, b = recorded()  # torchmetrics' poly_mmd, which takes sets of one size only
    assert kernel_distance(a, b[:60]) == pytest.approx(0.4366591817448944, abs=1e-6)


def test_kernel_distance_is_the_sum_over_pairs():
    a, b = (x[:n, :3] for x, n in zip(recorded(), (5, 7), strict=True))

    def mean(pairs):
        kernels = [
            (sum(float(p * q) for p, q in zip(x, y, strict=True)) / 3 + 1) ** 3 for x, y in pairs
        ]
        return sum(kernels) / len(kernels)

    within = [[(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j] for s in (a, b)]
    expected = mean(within[0]) + mean(within[1]) - 2 * mean([(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0])
def test_kernel_distance_of_shifted_gaussians_is_that_of_the_formula_without_bias(gap):
    # in one dimension (xy + 1)³ compares moments: Σ C(3,i)·(E[x^i] − E[y^i])², i = 1, 2, 3
    expected = 3 * gap**2 + 3 * gap**4 + (3 * gap + gap**3) ** 2
    rng = np.random.default_rng(0)
    found = [
        kernel_distance(rng.standard_normal((40, 1)), rng.standard_normal((40, 1)) + gap)
        for _ in range(2000)
    ]
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(expected, abs=4 * error)


def test_of_identical_sets_nothing_is_left():
    a, _ = recorded()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert kernel_distance(a, a) < 0  # without bias: no pair of a sample with itself within a set


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (np.zeros((1, 4)), np.zeros((5, 4)), "expected"),
        (np.zeros((5, 4)), np.zeros((5, 3)), "expected"),
        (np.zeros(5), np.zeros(5), "expected"),
        (np.zeros((5, 4)), np.full((5, 4), np.nan), "NaN"),
    ],
)
def test_features_that_do_not_fit_are_refused(measure, a, b, told):
    with pytest.raises(ConfigError, match=told):
        measure(a, b)
