"""Distances between two sets of features: one row a clip, whatever network gave them.

NumPy only; knows neither clips nor networks.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import ConfigError

Features = NDArray[np.float64]
Distance = Callable[[Features, Features], float]


def frechet_distance(a: Features, b: Features) -> float:
    """Distance of the Gaussians fitted to two sets of features (n, d) and (m, d).

    |μa − μb|² + tr(Ca + Cb − 2(Ca·Cb)^½) (Dowson and Landau 1982). The trace of the last term is
    the sum of singular values of Ca^½·Cb^½, which is exact for singular covariances too: no ridge.
    Raises ConfigError: shapes that do not fit, fewer than two samples, or NaN.
    """
    _check("Fréchet distance", a, b)
    shift = a.mean(0) - b.mean(0)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    cross = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False).sum()
    distance = shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    return max(float(distance), 0.0)


def kernel_distance(a: Features, b: Features) -> float:
    """Squared maximum mean discrepancy of two sets of features (n, d) and (m, d), without bias.

    The kernel is (x·y/d + 1)³ and pairs of a sample with itself are left out (Bińkowski et al.
    2018): of two sets out of one distribution it is 0 on average, so often below, and of a set and
    itself always.
    Raises ConfigError: shapes that do not fit, fewer than two samples, or NaN.
    """
    _check("kernel distance", a, b)
    within = [_kernel(x, x) for x in (a, b)]
    pairs = [len(x) * (len(x) - 1) for x in (a, b)]
    alike = sum((k.sum() - np.trace(k)) / n for k, n in zip(within, pairs, strict=True))
    return float(alike - 2 * _kernel(a, b).mean())


def _kernel(a: Features, b: Features) -> Features:
    kernel: Features = (a @ b.T / a.shape[1] + 1) ** 3
    return kernel


def _root(covariance: Features) -> Features:
    values, vectors = np.linalg.eigh(covariance)
    root: Features = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def _check(measure: str, a: Features, b: Features) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ConfigError(
            f"{measure}: got features {a.shape} and {b.shape}, expected (n, d) and (m, d) "
            "with at least 2 samples each"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ConfigError(f"{measure}: the features hold NaN or infinity; check the network's file")
