"""A comparison as CSV, JSON, a Markdown table and a plot."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec

from lvdm_tools.outputs import keep_matplotlib_out_of_home
from lvdm_tools.quality.ageing import MOST, Ageing
from lvdm_tools.quality.compare import Point

_COLUMNS = 3  # of panels
_BANDS = 4  # subjects whose intervals can be told apart in one panel


class VideoComparison(msgspec.Struct, frozen=True):
    """All points, and how they were taken."""

    features: str
    data: str
    videos: int
    repeats: int
    seed: int
    points: tuple[Point, ...]
    ageing: tuple[Ageing, ...] = ()

    @property
    def measures(self) -> list[str]:
        """The measures in their order."""
        return list(dict.fromkeys(point.measure for point in self.points))

    @property
    def subjects(self) -> list[str]:
        """The subjects in their order."""
        return list(dict.fromkeys(point.subject for point in self.points))


def merged(comparisons: Sequence[VideoComparison]) -> VideoComparison:
    """Put comparisons with the same real clips into one; a subject that occurs twice counts once.

    Raises ValueError for none.
    """
    first, *_ = comparisons
    points = {(p.subject, p.first, p.measure): p for one in comparisons for p in one.points}
    aged = {(a.subject, a.measure): a for one in comparisons for a in one.ageing}
    return msgspec.structs.replace(
        first, points=tuple(points.values()), ageing=tuple(aged.values())
    )


def as_csv(comparison: VideoComparison) -> str:
    """Write a line for each point."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Point.__struct_fields__)
    writer.writerows(msgspec.structs.astuple(point) for point in comparison.points)
    return file.getvalue()


def as_json(comparison: VideoComparison) -> str:
    """Write everything."""
    return msgspec.json.format(msgspec.json.encode(comparison)).decode() + "\n"


def as_markdown(comparison: VideoComparison) -> str:
    """Write a row for each subject and block, a column for each measure."""
    measures = comparison.measures
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for point in comparison.points:
        rows.setdefault((point.subject, f"{point.first}–{point.last}"), {})[point.measure] = _cell(
            point
        )
    real = {point.measure: f"{point.real:.3g}" for point in comparison.points}
    lines = [
        f"| videos | frames | {' | '.join(measures)} |",
        f"|---|---|{'---|' * len(measures)}",
        f"| real | | {' | '.join(real[m] for m in measures)} |",
        *(
            f"| {subject} | {frames} | {' | '.join(cells[m] for m in measures)} |"
            for (subject, frames), cells in rows.items()
        ),
    ]
    aged = ["", *_ageing(comparison)] if comparison.ageing else []
    return "\n".join([*lines, *aged, "", _protocol(comparison)]) + "\n"


def _ageing(comparison: VideoComparison) -> list[str]:
    """Return a table of the last block by the first; what grew too much is bold."""
    found = {(aged.subject, aged.measure): _ratio(aged) for aged in comparison.ageing}
    measures = list(dict.fromkeys(aged.measure for aged in comparison.ageing))
    return [
        f"| last frames / first | {' | '.join(measures)} |",
        f"|---|{'---|' * len(measures)}",
        *(
            f"| {subject} | {' | '.join(found[subject, m] for m in measures)} |"
            for subject in comparison.subjects
        ),
    ]


def _ratio(aged: Ageing) -> str:
    if aged.ratio is None:
        return "–"
    told = f"{aged.ratio:.2f} [{aged.low:.2f}, {aged.high:.2f}]"
    return f"**{told}**" if aged.ratio > MOST else told


def _cell(point: Point) -> str:
    if point.std is not None:
        return f"{point.value:.3g} ± {point.std:.2g}"
    return f"{point.value:.3g} [{point.low:.3g}, {point.high:.3g}]"


def _protocol(comparison: VideoComparison) -> str:
    spread = (
        f"{comparison.repeats} repeats, ± their standard deviation"
        if comparison.repeats > 1
        else "[95% by drawing videos anew]"
    )
    return (
        f"{comparison.videos} videos of each, {comparison.features}, against {comparison.data}, "
        f"seed {comparison.seed}, {spread}; real: statistics of real clips, and distances between "
        "two sets of them."
    )


def as_png(comparison: VideoComparison) -> bytes:
    """Draw a panel for each measure: over frames, or over subjects where there is one block."""
    keep_matplotlib_out_of_home()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measures = comparison.measures
    rows = -(-len(measures) // _COLUMNS)
    figure = Figure(figsize=(4.5 * _COLUMNS, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, measure in enumerate(measures, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, number)
        axes.set_title(measure)
        for index, subject in enumerate(comparison.subjects):
            points = [p for p in comparison.points if (p.subject, p.measure) == (subject, measure)]
            _draw(axes, index, subject, points, bands=len(comparison.subjects) <= _BANDS)
        real = next(p.real for p in comparison.points if p.measure == measure)
        axes.axhline(real, color="black", linestyle="--", linewidth=1, label="real")
        axes.grid(alpha=0.3)
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=_COLUMNS, fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _draw(axes: Any, index: int, subject: str, points: list[Point], *, bands: bool) -> None:
    values = [p.value for p in points]
    edges = [_edges(p) for p in points]
    if len(points) == 1:
        below, above = values[0] - edges[0][0], edges[0][1] - values[0]
        axes.errorbar([index], values, yerr=[[below], [above]], fmt="o", capsize=3, label=subject)
        axes.set_xticks([])
        return
    middles = [(p.first + p.last) / 2 for p in points]
    axes.plot(middles, values, marker=".", linewidth=1, color=f"C{index}", label=subject)
    if bands:
        axes.fill_between(middles, *zip(*edges, strict=True), color=f"C{index}", alpha=0.12)
    axes.set_xlabel("frame")


def _edges(point: Point) -> tuple[float, float]:
    """Return where what is uncertain begins and ends."""
    if point.std is not None:
        return point.value - point.std, point.value + point.std
    return (
        point.value if point.low is None else point.low,
        point.value if point.high is None else point.high,
    )
