"""How the end of long videos differs from their beginning: each measure's last block by its first.

Both blocks are of the same videos, so their ratio is surer than either. A measure that is around 0
for real clips, as a kernel distance is, has no such ratio.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from lvdm_tools.quality.distances import Features
from lvdm_tools.quality.intervals import interval

MOST = 1.2  # times its first value: what a measure may have become

Measure = Callable[..., float]  # of one block's rows (videos, clips, 4 + d), and real ones if asked


class Ageing(msgspec.Struct, frozen=True):
    """A measure of a subject in the last block, by that in the first, and what holds 95% of it.

    None where the first block has nothing to divide by.
    """

    subject: str
    measure: str
    ratio: float | None
    low: float | None = None
    high: float | None = None


def ageing(
    subject: str, measures: Sequence[tuple[str, Measure, list[Features]]], ends: Sequence[Features]
) -> Iterator[Ageing]:
    """Compare the first and the last block of the same videos.

    A measure comes with its name and the real clips that it takes besides.
    """
    for name, measure, known in measures:
        first, last = (measure(rows, *known) for rows in ends)
        if first == 0:
            yield Ageing(subject, name, None)
            continue
        together = np.concatenate(ends, axis=1)  # so that both are drawn of the same videos
        low, high = interval(_ratio(measure, ends[0].shape[1]), [together, *known])
        yield Ageing(subject, name, last / first, low, high)


def _ratio(measure: Measure, clips: int) -> Measure:
    def ratio(rows: Features, *known: Features) -> float:
        first, last = measure(rows[:, :clips], *known), measure(rows[:, clips:], *known)
        return last / first if first else np.inf

    return ratio
