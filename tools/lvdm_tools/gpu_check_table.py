"""What a GPU check found, judged against the targets and told as a Markdown page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PEAK_SHARE = 0.40  # of the measured dense half precision peak, at batch 8 or more
SPEED_UP = 1.3  # over the best PyTorch variant
HOST_SHARE = 0.05  # of the wall time of a whole video
_BATCH = 8


def judge(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare what was measured with the targets; what is missing is neither met nor failed."""
    targets = []
    for name, entry in found["backends"].items():
        if not name.startswith("tensorrt") or entry.get("problem"):
            continue
        share, faster = _best_step(found, entry)
        decoder = _speed_up(found, entry, "decoder", "1")
        host = host_share(entry)
        denoiser_met = None
        if share is not None or faster is not None:
            denoiser_met = (share or 0) >= PEAK_SHARE or (faster or 0) >= SPEED_UP
        targets += [
            _target(
                name,
                f"denoiser, batch ≥ {_BATCH}: ≥ {PEAK_SHARE:.0%} of peak or ≥ {SPEED_UP}× PyTorch",
                f"{_percent(share)} of peak, {_times(faster)}",
                denoiser_met,
            ),
            _target(
                name,
                f"decoder: ≥ {SPEED_UP}× the best PyTorch",
                _times(decoder),
                None if decoder is None else decoder >= SPEED_UP,
            ),
            _target(
                name,
                f"host work and copies: < {HOST_SHARE:.0%} of wall time",
                _percent(host),
                None if host is None else host < HOST_SHARE,
            ),
        ]
    return targets


def _target(backend: str, wanted: str, got: str, met: bool | None) -> dict[str, Any]:
    return {"backend": backend, "wanted": wanted, "got": got, "met": met}


def host_share(entry: dict[str, Any]) -> float | None:
    """Return the share of a whole video's time in which the device does not compute.

    Time outside sessions is measured; of the time inside, the share of copies is that of a step.
    """
    video, step = entry.get("end_to_end"), entry.get("predict", {}).get(str(_BATCH))
    if not isinstance(video, dict) or not isinstance(step, dict):
        return None
    if "outside_sessions" not in video or "device_ms" not in step:
        return None
    inside = 1 - video["outside_sessions"]
    return float(1 - inside * min(1.0, step["device_ms"] / step["ms"]))


def _best_step(found: dict[str, Any], entry: dict[str, Any]) -> tuple[float | None, float | None]:
    batches = [b for b in entry.get("predict", {}) if int(b) >= _BATCH]
    shares = [s for b in batches if (s := peak_share(found, entry, b)) is not None]
    faster = [f for b in batches if (f := _speed_up(found, entry, "predict", b)) is not None]
    return max(shares, default=None), max(faster, default=None)


def peak_share(
    found: dict[str, Any], entry: dict[str, Any], batch: str, graph: str = "predict"
) -> float | None:
    """Return the arithmetic of a run as a share of a GPU's measured matrix peak."""
    ms, peak = _ms(entry, graph, batch), found.get("peak_tflops")
    if ms is None or not isinstance(peak, float) or found["gpu"] is None:
        return None
    return float(found["gflop"][graph] * int(batch) / ms / peak)


def _speed_up(found: dict[str, Any], entry: dict[str, Any], graph: str, batch: str) -> float | None:
    ours = _ms(entry, graph, batch)
    theirs = [
        ms
        for variant in found["torch"].values()
        if isinstance(ms := variant.get(graph, {}).get(batch), float)
    ]
    return None if ours is None or not theirs else min(theirs) / ours


def _ms(entry: dict[str, Any], graph: str, batch: str) -> float | None:
    cell = entry.get(graph, {}).get(batch)
    return cell.get("ms") if isinstance(cell, dict) else None


def page(found: dict[str, Any]) -> str:
    """Return the whole page."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    gpu = found["gpu"]
    where = "a CPU, as a dry run: no number here is a GPU's" if gpu is None else gpu["name"]
    yield f"# GPU check: `{found['model']}` {found['precision']} on {where}"
    yield ""
    if gpu is not None:
        yield (
            f"Compute capability {gpu['capability']}, {gpu['total'] / 2**30:.0f} GiB, "
            f"driver {gpu['driver']}. "
        )
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    yield f"{found['when']}, {found['machine']}; {packages}."
    yield f"Dense matrix peak, measured: {_number(found.get('peak_tflops'), 'TFLOP/s')}."
    work = found.get("gflop", {})
    yield "Work per run at batch 1: " + ", ".join(f"{n} {g:.4g} GFLOP" for n, g in work.items())
    yield from _heading("Backends", "backend", "state", "compiled in", "largest error")
    for name, entry in found["backends"].items():
        yield _row(name, _state(entry), _number(entry.get("build_seconds"), "s"), _parity(entry))
    yield from _times_table(found, "predict", "Milliseconds per denoiser step, copies included")
    yield from _times_table(found, "decoder", "Milliseconds per decoded clip, copies included")
    yield from _heading("From end to end", "backend", "frames per second", "host and copies")
    for name, entry in found["backends"].items():
        yield _row(name, _speed(entry.get("end_to_end")), _percent(host_share(entry)))
    yield from _heading("Targets", "backend", "wanted", "got", "met")
    for target in found["targets"]:
        met = {True: "yes", False: "no", None: "never measured"}[target["met"]]
        yield _row(target["backend"], target["wanted"], target["got"], met)
    if not found["targets"]:
        yield _row("none", "no TensorRT backend ran here", "", "never measured")


def _heading(title: str, *columns: str) -> Iterator[str]:
    yield from ("", f"## {title}", "", _row(*columns), "|---" * len(columns) + "|")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _times_table(found: dict[str, Any], graph: str, title: str) -> Iterator[str]:
    rows = {**found["torch"], **found["backends"]}
    batches = sorted({b for row in rows.values() for b in row.get(graph, {})}, key=int)
    yield from _heading(title, "", *(f"batch {b}" for b in batches))
    for name, row in rows.items():
        cells = []
        for batch in batches:
            text = _cell(row.get(graph, {}).get(batch))
            share = peak_share(found, row, batch, graph) if "problem" in row else None
            cells.append(text if share is None else f"{text} ({share:.0%} of peak)")
        yield _row(name, *cells)


def _state(entry: dict[str, Any]) -> str:
    return f"never run: {entry['problem']}" if entry.get("problem") else "works here"


def _speed(video: Any) -> str:
    if isinstance(video, dict) and "frames_per_second" in video:
        return f"{video['frames_per_second']:.2f}"
    return _cell(video)


def _parity(entry: dict[str, Any]) -> str:
    parity = entry.get("parity")
    if not isinstance(parity, dict) or "failed" in parity:
        return _cell(parity)
    return ", ".join(f"{name} {graph['most']:.2g}" for name, graph in parity.items())


def _cell(value: Any) -> str:
    """Show a time, the reason for a missing one, or that nobody tried."""
    if isinstance(value, dict):
        if "failed" in value:
            return f"failed: {value['failed']}".replace("|", "/")
        return f"{value['ms']:.2f}" if "ms" in value else "–"
    return "never run" if value is None else f"{value:.2f}"


def _number(value: Any, unit: str) -> str:
    return f"{value:.1f} {unit}" if isinstance(value, float) else _cell(value)


def _percent(value: float | None) -> str:
    return "never measured" if value is None else f"{value:.1%}"


def _times(value: float | None) -> str:
    return "never measured" if value is None else f"{value:.2f}× the best PyTorch"
