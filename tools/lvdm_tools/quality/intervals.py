"""What other videos might have given: intervals from drawing videos anew."""

from collections.abc import Callable, Sequence

import numpy as np

from lvdm_tools.quality.distances import Features

_DRAWS = 200  # times that videos are drawn anew for an interval
_SHARE = 0.95  # of the draws, inside an interval
_SEED = 16


def interval(
    measure: Callable[..., float], sets: Sequence[Features], draws: int = _DRAWS
) -> tuple[float, float]:
    """Return what holds 95% of the values that other videos might give, by drawing videos anew.

    Videos are drawn with replacement, the first axis of each set. A distance of drawn sets is too
    large, because videos occur twice: so the draws tell the width only, and are moved until their
    mean is the measured value (Efron and Tibshirani 1993, chapter 10).
    """
    rng = np.random.default_rng(_SEED)
    drawn = [
        measure(*(rows[rng.integers(len(rows), size=len(rows))] for rows in sets))
        for _ in range(draws)
    ]
    edges = np.quantile(drawn, [(1 - _SHARE) / 2, (1 + _SHARE) / 2])
    low, high = edges - np.mean(drawn) + measure(*sets)
    return float(low), float(high)
