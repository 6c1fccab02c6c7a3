"""Quality reports as text and as part of a bundle: a Markdown table, JSON, the manifest."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lvdm_engines.atomic import whole_file
from lvdm_engines.bundle import MANIFEST, load_bundle
from lvdm_engines.errors import BundleError, ConfigError, cause, quoted
from lvdm_engines.manifest_json import format_manifest
from lvdm_tools.quality import targets as quality
from lvdm_tools.quality.evaluate import Report

_MISSING = "–"
_TARGETED = ("sky-tiny", "synth")  # bundle and data


def as_dict(report: Report, beside: Mapping[str, Report] | None = None) -> dict[str, Any]:
    """Give a report as JSON holds it; of reports beside it only how their clips look is kept."""
    plain: dict[str, Any] = msgspec.to_builtins(report)
    plain["reached"] = report.reached
    if beside:
        plain["beside"] = {k: msgspec.to_builtins(r.generation) for k, r in beside.items()}
    return plain


def summary(report: Report, beside: Mapping[str, Report] | None = None) -> dict[str, Any]:
    """Give the numbers that a manifest carries: one short value per line, four digits."""
    made, kept, joined = report.generation, report.reconstruction, report.continuation
    numbers: dict[str, float | None] = {
        "psnr_db": kept.psnr if kept else None,
        "ssim": kept.ssim if kept else None,
        "colour_error_ciede2000": kept.colour_error if kept else None,
        "mean_colour_difference": made.mean_colour.difference,
        "contrast_difference": made.contrast.difference,
        "spectrum_slope_difference": made.spectrum_slope.difference,
        "frame_change_difference": made.frame_change.difference,
        "frechet_over_floor": made.frechet.ratio if made.frechet else None,
        "continuity": joined.ratio if joined else None,
        "continuity_without_hand_over": joined.raw if joined else None,
        "continuity_of_decoded_frames": joined.decoded if joined else None,
        "continuity_of_reconstructed_clips": joined.real if joined else None,
    }
    if report.long_videos:
        numbers["seam_of_windows"] = report.long_videos.windows
        numbers["seam_of_keyframes"] = report.long_videos.keyframes
    if report.prompts:
        numbers["named_and_shown"] = report.prompts.shown
        numbers["named_and_shown_by_real_clips"] = report.prompts.real
    for label, other in (beside or {}).items():
        frechet = other.generation.frechet
        numbers[f"frechet_over_floor_{label}"] = frechet.ratio if frechet else None
    short = {k: float(f"{v:.4g}") for k, v in numbers.items() if v is not None and isfinite(v)}
    return {"measured_on": _protocol(report), **short}


def _protocol(report: Report) -> str:
    kept = ("mode", "sampler", "steps", "eta", "guidance", "noise_level", "refine")
    sampling = " ".join(f"{k}={report.settings[k]}" for k in kept)
    after = f" after {report.skip}" if report.skip else ""
    return (
        f"{report.generation.clips} clips of {report.frames} frames{after}, {report.data}, "
        f"seed {report.seed}, {sampling}"
    )


def markdown(report: Report, beside: Mapping[str, Report] | None = None) -> str:
    """Write the table of a report, with a column for each report beside it, and its targets."""
    columns = {report.bundle: _rows(report), **{k: _rows(r) for k, r in (beside or {}).items()}}
    heads = ["measure", *(["target"] if _has_targets(report) else []), *columns]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for measure, row in columns[report.bundle].items():
        target = [row.target] if _has_targets(report) else []
        values = [rows[measure].value if measure in rows else _MISSING for rows in columns.values()]
        cells = [measure, *target, *values]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{_protocol(report)}."]) + "\n"


def missed(report: Report) -> list[str]:
    """Return the measures whose stated target is not reached."""
    if not _has_targets(report):
        return []
    return [measure for measure, row in _rows(report).items() if row.reached is False]


def _has_targets(report: Report) -> bool:
    """Tell whether the targets are those of what was measured: the built-in model on its data.

    They hold for as many clips as a distance needs.
    """
    return (report.bundle, report.data) == _TARGETED and report.generation.frechet is not None


class _Row(NamedTuple):
    """A measure as the table shows it; `reached` is None for what was not measured."""

    target: str
    value: str
    reached: bool | None


def _rows(report: Report) -> dict[str, _Row]:
    """Every report has the same measures, but for what captions name."""
    made, kept, joined, long = (
        report.generation,
        report.reconstruction,
        report.continuation,
        report.long_videos,
    )
    near = f"within {quality.MOST_DIFFERENCE:.0%} of real"
    rows = {
        "reconstruction PSNR, dB": _row(
            f"≥ {quality.LEAST_PSNR:g}",
            None if kept is None else (f"{kept.psnr:.2f}", kept.psnr >= quality.LEAST_PSNR),
        ),
        "reconstruction SSIM": _row(
            f"≥ {quality.LEAST_SSIM:g}",
            None if kept is None else (f"{kept.ssim:.3f}", kept.ssim >= quality.LEAST_SSIM),
        ),
        "reconstruction ΔE₀₀ (colour)": _Row(
            _MISSING, _MISSING if kept is None else f"{kept.colour_error:.2f}", None
        ),
    }
    for measure, statistic, digits in (
        ("mean colour", made.mean_colour, ".0f"),
        ("contrast", made.contrast, ".1f"),
        ("spectrum slope", made.spectrum_slope, ".2f"),
        ("frame-to-frame change", made.frame_change, ".3f"),
    ):
        rows[measure] = _Row(near, _beside(statistic, digits), statistic.reached)
    rows["Fréchet distance / floor"] = _row(
        f"≤ {quality.MOST_FRECHET_RATIO:g}",
        None if made.frechet is None else (_distance(made.frechet), made.frechet.reached),
    )
    rows["condition continuity"] = _row(
        f"≤ {quality.MOST_CONTINUITY:g}",
        None if joined is None else (_joint(joined), joined.reached),
    )
    rows["change at decode windows / elsewhere"] = _row(
        f"≤ {quality.MOST_SEAM:g}", None if long is None else (_seams(long), long.reached)
    )
    if (told := report.prompts) is not None:
        value = f"{told.shown:.0%} (real clips {told.real:.0%})"
        rows["what captions name is shown"] = _Row(_MISSING, value, None)
    return rows


def _row(target: str, measured: tuple[str, bool] | None) -> _Row:
    return _Row(target, *(measured or (_MISSING, None)))


def _joint(joined: quality.Continuation) -> str:
    return (
        f"{joined.ratio:.2f} (without hand-over {joined.raw:.2f}; both frames decoded "
        f"{joined.decoded:.2f}, in reconstructed real clips {joined.real:.2f})"
    )


def _seams(seams: quality.LongVideos) -> str:
    windows, keys = (
        _MISSING if number is None else f"{number:.2f}"
        for number in (seams.windows, seams.keyframes)
    )
    return f"{windows} (at keyframes {keys}; {seams.videos} videos of {seams.frames} frames)"


def _beside(statistic: quality.Statistic, digits: str) -> str:
    ours, theirs = (
        " ".join(format(v, digits) for v in values)
        for values in (statistic.generated, statistic.real)
    )
    return f"{ours} against {theirs}: {statistic.difference:.0%}"


def _distance(distance: quality.Distance) -> str:
    return f"{distance.ratio:.2f} ({distance.distance:.3g} / {distance.floor:.3g})"


def record(bundle: str | Path, numbers: dict[str, Any]) -> Path:
    """Put the numbers into a bundle's manifest, in one step; the path of the manifest.

    Raises BundleError: not a bundle, or its manifest cannot be written.
    """
    opened = load_bundle(bundle)
    path = opened.path / MANIFEST
    manifest = msgspec.structs.replace(opened.manifest, quality=numbers)
    try:
        with whole_file(path) as file:
            file.write(format_manifest(manifest))
    except OSError as err:
        raise BundleError(f"{path} cannot be written: {cause(err)}") from err
    return path


def labelled(pairs: Sequence[str]) -> dict[str, str]:
    """Split `LABEL=BUNDLE` arguments.

    Raises ConfigError: one without a label or a bundle, or a label given twice.
    """
    bundles: dict[str, str] = {}
    for pair in pairs:
        label, _, bundle = pair.partition("=")
        if not label.isprintable() or not label or not bundle or label in bundles:
            raise ConfigError(f"got {quoted(pair)}, expected LABEL=BUNDLE with a label of its own")
        bundles[label] = bundle
    return bundles
