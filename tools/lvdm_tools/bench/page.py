"""What a bench found, as Markdown: the same on a terminal and in docs/benchmarks.md."""

from collections.abc import Iterator
from typing import Any

from lvdm_tools.bench.clock import Found
from lvdm_tools.bench.gpu_page import cell, table

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]

_QUIET = 0.1  # cores of other programs that do not matter
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def page(found: Found) -> str:
    """Return all tables."""
    return "\n".join(_lines(found)) + "\n"


def filled(text: str, found: Found) -> str | None:
    """Return a page with the tables between its markers, or None if it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n\n{page(found)}\n{end}{after}" if end else None


def _lines(found: Found) -> Iterator[str]:
    yield from _header(found)
    if "export" in found:
        told = found["export"]
        taken, peak = _cell(told, ".0f", "seconds"), _cell(told, ",.0f", "peak_mib")
        yield f"Export and verification of the predictor: {taken} s, {peak} MiB peak."
    if "graphs" in found:
        yield from table(*_graphs(found["graphs"]))
    if "videos" in found:
        yield from table(*_videos(found["videos"]))
    if "time" in found:
        yield from table(*_time(found["time"]))
    for backend, kinds in found.get("growth", {}).items():
        yield from table(*_growth(backend, kinds))


def _header(found: Found) -> Iterator[str]:
    told = found["machine"]
    instructions = f" ({', '.join(told['instructions'])})" if told["instructions"] else ""
    packages = ", ".join(f"{name} {version}" for name, version in told["packages"].items())
    peaks = told["peaks_gflop_per_s"]
    where = f"{told['cpu']}{instructions}, {told['cores']} cores, threads for a run:"
    yield f"`{found['bundle']}` on {where} {told['threads']}."
    yield f"{told['when']}, {told['platform']}, Python {told['python']}, {packages}."
    yield "Matrix products, measured: " + (
        ", ".join(f"{name} {_cell(peak, '.0f')} GFLOP/s" for name, peak in peaks.items()) + "."
    )
    others = told.get("cores_of_others")
    yield f"Meanwhile other programs kept {_cell(others, '.1f')} cores busy."
    if isinstance(others, float) and others > _QUIET and told["threads"] > 1:
        yield "**Torch's threads wait for each other busily: beside others, ratios flatter us.**"
    for name, why in found["refused"].items():
        yield f"Not measured: `{name}`, {why.partition(';')[0]}."


def _graphs(graphs: Found) -> Table:
    ways = [(name, e, way, told) for name, e in graphs.items() for way, told in e["ways"].items()]
    peaks = list(dict.fromkeys(p for _, _, _, told in ways for p in told.get("of_peak", {})))
    memory = any("peak_mib" in told for *_, told in ways)
    rows: list[tuple[str, ...]] = [
        (
            name,
            _cell(entry["gflop"], ".3g" if (entry["gflop"] or 0) < 1000 else ",.0f"),
            way,
            _spread(told, "ms"),
            _cell(told.get("gflop_per_s"), ".0f"),
            *(_cell(told.get("of_peak", {}).get(peak), ".0%") for peak in peaks),
            _times(told),
            *([_cell(told.get("peak_mib"), ",.0f")] if memory else []),
        )
        for name, entry, way, told in ways
    ]
    shares = (f"of {peak} peak" for peak in peaks)
    columns = ("graph × batch", "GFLOP", "", "ms (quartiles)", "GFLOP/s", *shares, "× torch eager")
    return "Graphs", (*columns, *(["peak MiB"] if memory else [])), rows


def _videos(videos: Found) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            part["settings"] + (", the default" if name == "default" else ""),
            way,
            _spread(told, "seconds"),
            _cell(told.get("frames_per_second"), ".1f"),
            _cell(told.get("first_seconds"), ".2f"),
            _cell(told.get("peak_mib"), ",.0f"),
            _times(told),
        )
        for name, part in videos.items()
        for way, told in part["ways"].items()
    ]
    columns = ("video", "", "s (quartiles)", "frames/s", "first frames, s", "peak MiB")
    return "Videos", (*columns, "× torch eager"), rows


def _time(backends: Found) -> Table:
    names = ("denoise", "decode", "both", "host", "waiting")
    rows: list[tuple[str, ...]] = [
        (name, *(_cell(told.get("shares", told), ".1%", part) for part in names))
        for name, told in backends.items()
    ]
    columns = ("", "only denoising", "only decoding", "both", "host", "waiting")
    return "Where the wall time of a video goes", columns, rows


def _growth(backend: str, kinds: Found) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            f"{kind} {size}",
            _cell(told, ".2f", "seconds"),
            _cell(told, ".1f", "ms_per_frame"),
            _cell(told.get("peak_mib"), ",.0f"),
        )
        for kind, sizes in kinds.items()
        for size, told in sizes.items()
    ]
    return f"Growth on `{backend}`", ("", "s", "ms per frame", "peak MiB"), rows


def _spread(told: Found, unit: str) -> str:
    if unit not in told:
        return cell(told, unit)
    value, low, high = told[unit], told["low"], told["high"]
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f}, n = {told['runs']})"


def _times(told: Found) -> str:
    return "–" if "times_eager" not in told else f"{told['times_eager']:.2f}×"


def _cell(value: Any, form: str, key: str = "") -> str:
    """Show a number, or an entry's, or the reason for a missing one."""
    if isinstance(value, dict) and key in value:
        value = value[key]
    if isinstance(value, int | float):
        return format(value, form)
    return "–" if value is None else cell(value)
