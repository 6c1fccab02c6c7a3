"""Sets of videos beside real clips, block by block of their length, with what chance leaves open.

Knows arrays of features and whose they are; writes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from lvdm_engines.errors import ConfigError
from lvdm_tools.quality.ageing import Ageing, ageing
from lvdm_tools.quality.blocks import Wanted
from lvdm_tools.quality.distances import (
    Distance,
    Features,
    frechet_distance,
    kernel_distance,
)
from lvdm_tools.quality.intervals import interval
from lvdm_tools.quality.networks import CLIP, FeatureNetwork
from lvdm_tools.quality.placed import STATISTICS, place
from lvdm_tools.quality.subjects import Real, Subject

PUBLISHED = 2048  # clips of each side in the protocol of FVD


@dataclass(frozen=True)
class Extent:
    """How much is measured: videos of each subject, their frames, frames of a block, repeats.

    Of the blocks it is every Nth, and the last.
    """

    videos: int
    frames: int
    block: int
    repeats: int = 1
    every: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot be cut into clips and blocks."""
        if self.videos < 2 or self.block % CLIP or self.frames % self.block or self.frames < CLIP:
            raise ConfigError(
                f"got {self.videos} videos of {self.frames} frames in blocks of {self.block}; "
                f"expected 2 videos or more, and lengths that clips of {CLIP} frames divide"
            )

    @property
    def wanted(self) -> Wanted:
        """What is measured of each video."""
        return Wanted(self.frames, self.block, self.every)


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


class Measured(NamedTuple):
    """What was found of all subjects."""

    points: list[Point]
    ageing: list[Ageing]


def compare(
    subjects: Sequence[Subject],
    real: Real,
    network: FeatureNetwork,
    extent: Extent,
    say: Callable[[str], None],
) -> Measured:
    """Measure every subject against the same real clips, and how it ages if there are blocks.

    Raises ConfigError: features that tell no real clips apart; and what `place` raises.
    """
    sets = range(2 * extent.repeats)
    clips = len(sets) * extent.videos
    if real.count is not None and real.count < clips:
        say(
            f"{clips} real clips of {real.count} videos: floors are too small where they share some"
        )
    clip = Wanted(extent.block, extent.block)
    known = [place(real, network, _run(extent, i), clip, say) for i in sets]
    _warn(known[0], network, extent, say)
    measured = Measured([], [])
    for subject in subjects:
        runs = (_run(extent, number) for number in range(extent.repeats))
        made = [place(subject, network, run, extent.wanted, say) for run in runs]
        measured.points.extend(_points(subject.label, made, known, network, extent))
        if len(extent.wanted.blocks) > 1:
            ends = _block(made[0], 0, extent), _block(made[0], -1, extent)
            measured.ageing.extend(ageing(subject.label, _measures(network, known[0]), ends))
    return measured


def _run(extent: Extent, number: int) -> range:
    return range(number * extent.videos, (number + 1) * extent.videos)


def _warn(
    real: Features, network: FeatureNetwork, extent: Extent, say: Callable[[str], None]
) -> None:
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
    if network.published and extent.videos < PUBLISHED:
        say(f"{extent.videos} clips, where published values of FVD are of {PUBLISHED}")


def _points(
    label: str,
    made: list[Features],
    known: list[Features],
    network: FeatureNetwork,
    extent: Extent,
) -> list[Point]:
    points = []
    for number, first in enumerate(extent.wanted.blocks):
        block = [_block(rows, number, extent) for rows in made]
        where = partial(Point, label, first, first + extent.block)
        for name, measure in (
            (network.frechet, frechet_distance),
            (network.kernel, kernel_distance),
        ):
            points.append(_distance(partial(where, name), _between(measure), block, known))
        for column, name in enumerate(STATISTICS):
            points.append(_statistic(partial(where, name), column, block, known))
    return points


def _block(rows: Features, number: int, extent: Extent) -> Features:
    """Return the clips of a block, counted among those that are measured."""
    return np.split(rows, len(extent.wanted.blocks), axis=1)[number]


def _measures(
    network: FeatureNetwork, real: Features
) -> list[tuple[str, Callable[..., float], list[Features]]]:
    """Return measures of rows that have a ratio, by name, and what real clips they take besides."""
    return [
        (network.frechet, _between(frechet_distance), [real]),
        *((name, partial(_mean, column=column), []) for column, name in enumerate(STATISTICS)),
    ]


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
    mean = partial(_mean, column=column)
    values, theirs = [mean(rows) for rows in block], [mean(rows) for rows in known]
    spread = _spread(values, mean, [block[0]])
    return point(value=float(np.mean(values)), real=float(np.mean(theirs)), **spread)


def _mean(rows: Features, column: int) -> float:
    return float(rows[..., column].mean())


def _spread(
    values: list[float], measure: Callable[..., float], sets: list[Features]
) -> dict[str, float]:
    if len(values) > 1:
        return {"std": float(np.std(values, ddof=1))}
    low, high = interval(measure, sets)
    return {"low": low, "high": high}
