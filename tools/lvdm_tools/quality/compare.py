"""Sets of videos beside real clips, block by block of their length, with what chance leaves open.

Knows arrays of features and whose they are; writes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np

from lvdm_engines.errors import ConfigError
from lvdm_tools.quality.distances import (
    Distance,
    Features,
    frechet_distance,
    kernel_distance,
)
from lvdm_tools.quality.networks import CLIP, FeatureNetwork
from lvdm_tools.quality.placed import STATISTICS, place
from lvdm_tools.quality.subjects import Real, Subject

PUBLISHED = 2048  # clips of each side in the protocol of FVD
_DRAWS = 200  # times that videos are drawn anew for an interval
_SHARE = 0.95  # of the draws, inside an interval
_SEED = 16


@dataclass(frozen=True)
class Plan:
    """How much is measured: videos of each subject, their frames, frames of a block, repeats."""

    videos: int
    frames: int
    block: int
    repeats: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot be cut into clips and blocks."""
        if self.videos < 2 or self.block % CLIP or self.frames % self.block or self.frames < CLIP:
            raise ConfigError(
                f"got {self.videos} videos of {self.frames} frames in blocks of {self.block}; "
                f"expected 2 videos or more, and lengths that clips of {CLIP} frames divide"
            )


class Point(msgspec.Struct, frozen=True):
    """One measure of one subject in frames `first` to `last` of its videos.

    `real` is the same of real clips; for a distance the one between two sets of them, its floor.
    `std` is over repeats; `low` and `high` hold 95% of what other videos might give. Either is
    None where the other is told.
    """

    subject: str
    first: int
    last: int
    measure: str
    value: float
    real: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


def compare(
    subjects: Sequence[Subject],
    real: Real,
    network: FeatureNetwork,
    plan: Plan,
    say: Callable[[str], None],
) -> list[Point]:
    """Measure every subject against the same real clips.

    Raises ConfigError: features that tell no real clips apart; and what `place` raises.
    """
    sets = range(2 * plan.repeats)
    clips = len(sets) * plan.videos
    if real.count is not None and real.count < clips:
        say(
            f"{clips} real clips of {real.count} videos: floors are too small where they share some"
        )
    known = [place(real, network, _run(plan, i), plan.block, say) for i in sets]
    _warn(known[0], network, plan, say)
    made = (
        (s.label, [place(s, network, _run(plan, i), plan.frames, say) for i in range(plan.repeats)])
        for s in subjects
    )
    return [point for label, rows in made for point in _points(label, rows, known, network, plan)]


def _run(plan: Plan, number: int) -> range:
    return range(number * plan.videos, (number + 1) * plan.videos)


def _warn(real: Features, network: FeatureNetwork, plan: Plan, say: Callable[[str], None]) -> None:
    """Tell what few clips do. Raises ConfigError where the network sees no difference at all."""
    features = _features(real)
    if not np.ptp(features, axis=0).any():
        raise ConfigError(
            f"{network.name}: all real clips have the same features, which leave nothing to "
            "compare; give other data, or another network"
        )
    clips, dimensions = features.shape
    if clips <= dimensions:
        say(
            f"{network.name}: covariances of {clips} clips in {dimensions} dimensions are "
            f"singular: {network.frechet} is too large, compare it with its floor only, or take "
            f"more than {dimensions} clips"
        )
    if network.published and plan.videos < PUBLISHED:
        say(f"{plan.videos} clips, where published values of FVD are of {PUBLISHED}")


def _points(
    label: str, made: list[Features], known: list[Features], network: FeatureNetwork, plan: Plan
) -> list[Point]:
    points, per_block = [], plan.block // CLIP
    for first in range(0, plan.frames, plan.block):
        place_in = slice(first // CLIP, first // CLIP + per_block)
        block = [rows[:, place_in] for rows in made]
        where = partial(Point, label, first, first + plan.block)
        for name, measure in (
            (network.frechet, frechet_distance),
            (network.kernel, kernel_distance),
        ):
            points.append(_distance(partial(where, name), _between(measure), block, known))
        for column, name in enumerate(STATISTICS):
            points.append(_statistic(partial(where, name), column, block, known))
    return points


def _features(rows: Features) -> Features:
    """Leave statistics and videos away: (videos, clips, 4 + d) → (videos · clips, d)."""
    return rows[..., len(STATISTICS) :].reshape(len(rows) * rows.shape[1], -1)


def _between(measure: Distance) -> Distance:
    """Return the distance of two sets of rows (videos, clips, 4 + d), of their features."""

    def distance(a: Features, b: Features) -> float:
        return measure(_features(a), _features(b))

    return distance


def _distance(
    point: Callable[..., Point], between: Distance, block: list[Features], known: list[Features]
) -> Point:
    values = [between(a, b) for a, b in zip(block, known, strict=False)]
    floors = [between(a, b) for a, b in zip(known[::2], known[1::2], strict=True)]
    spread = _spread(values, between, [block[0], known[0]])
    return point(value=float(np.mean(values)), real=float(np.mean(floors)), **spread)


def _statistic(
    point: Callable[..., Point], column: int, block: list[Features], known: list[Features]
) -> Point:
    def mean(rows: Features) -> float:
        return float(rows[..., column].mean())

    values, theirs = [mean(rows) for rows in block], [mean(rows) for rows in known]
    spread = _spread(values, mean, [block[0]])
    return point(value=float(np.mean(values)), real=float(np.mean(theirs)), **spread)


def _spread(
    values: list[float], measure: Callable[..., float], sets: list[Features]
) -> dict[str, float]:
    if len(values) > 1:
        return {"std": float(np.std(values, ddof=1))}
    low, high = interval(measure, sets)
    return {"low": low, "high": high}


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
