"""What a GPU check found, judged against the targets and told as a Markdown page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PEAK_SHARE = 0.40  # of the measured dense half precision peak, at batch 8 or more
SPEED_UP = 1.3  # over the best PyTorch variant
HOST_SHARE = 0.05  # of the wall time of a whole video
_BATCH = 8
_WORKS = "works here"


def judge(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare what was measured with the targets; what is missing is neither met nor failed."""
    targets = []
    for name, entry in found["backends"].items():
        if not name.startswith("tensorrt") or entry.get("problem"):
            continue
        decoder, host = _speed_up(found, entry, "decoder", "1"), host_share(entry)
        targets += [
            _target(
                name,
                f"denoiser, every batch ≥ {_BATCH}: ≥ {PEAK_SHARE:.0%} of peak or ≥ {SPEED_UP}× "
                "PyTorch",
                *_denoiser(found, entry),
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


def _denoiser(found: dict[str, Any], entry: dict[str, Any]) -> tuple[str, bool | None]:
    """Say what the worst of the batches measured reaches, and whether all reach a target.

    A batch misses only if both alternatives were measured and neither is reached.
    """
    batches = sorted((b for b in entry.get("predict", {}) if int(b) >= _BATCH), key=int)
    measured = [b for b in batches if _ms(entry, "predict", b) is not None]
    shares = {b: peak_share(found, entry, b) for b in measured}
    faster = {b: _speed_up(found, entry, "predict", b) for b in measured}
    verdicts = [_either(shares[b], faster[b]) for b in measured]
    missing = [b for b in batches if b not in measured]
    worst = (
        _percent(min((s for s in shares.values() if s is not None), default=None)),
        _times(min((f for f in faster.values() if f is not None), default=None)),
    )
    lost = f"; batch {', '.join(missing)} did not run" if missing else ""
    got = f"{worst[0]} of peak, {worst[1]} (worst of batch {', '.join(measured) or 'none'}{lost})"
    if False in verdicts:
        return got, False
    return got, None if None in verdicts or missing or not verdicts else True


def _either(share: float | None, faster: float | None) -> bool | None:
    reached = [
        None if share is None else share >= PEAK_SHARE,
        None if faster is None else faster >= SPEED_UP,
    ]
    return True if True in reached else None if None in reached else False


def host_share(entry: dict[str, Any]) -> float | None:
    """Return the share of a whole video's time in which the device does not compute.

    Measured: the wall time of the video, less the device's time for the same runs.
    """
    video = entry.get("end_to_end")
    if not isinstance(video, dict) or "device_seconds" not in video:
        return None
    return float(max(0.0, 1 - video["device_seconds"] / video["seconds"]))


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
    yield ""
    yield (
        "PyTorch has its inputs and outputs on the device already. It may use TF32, cuDNN picks "
        'convolutions by trial, and torch.compile works in mode "reduce-overhead" for one shape '
        "at a time."
    )
    yield from _times_table(found, "decoder", "Milliseconds per decoded clip, copies included")
    yield from _copies(found)
    title = "From end to end (host and copies, measured: wall time less the device's time)"
    yield from _heading(title, "backend", "frames per second", "host and copies")
    for name, entry in found["backends"].items():
        yield _row(name, _speed(entry.get("end_to_end")), _percent(host_share(entry)))
    yield from _heading("Targets", "backend", "wanted", "got", "met")
    for target in found["targets"]:
        met = {True: "yes", False: "no", None: "not measured"}[target["met"]]
        yield _row(target["backend"], target["wanted"], target["got"], met)
    if not found["targets"]:
        yield _row("none", "no TensorRT backend ran here", "", "not measured")


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


def _copies(found: dict[str, Any]) -> Iterator[str]:
    """Show what the way to the device and back takes of each step."""
    title = "Latents and timestep in, eps out: copies per step, measured (of the step)"
    steps = {name: entry.get("predict", {}) for name, entry in found["backends"].items()}
    batches = sorted({b for cells in steps.values() for b in cells}, key=int)
    yield from _heading(title, "", *(f"batch {b}" for b in batches))
    for name, cells in steps.items():
        told = (_copy_cell(cells.get(batch)) for batch in batches)
        yield _row(name, *told)
    yield ""
    yield (
        "The sampler runs on the host, so these copies are made at every step; leaving latents on "
        "the device could save this much at most. Masks, noise levels and contexts are uploaded "
        "when they change."
    )


def _copy_cell(cell: Any) -> str:
    if not isinstance(cell, dict) or "copies_ms" not in cell:
        return "not measured"
    return f"{cell['copies_ms']:.3f} ({cell['copies_ms'] / cell['ms']:.1%})"


def verdict(found: dict[str, Any]) -> str | None:
    """Say why a finished check cannot count as passed, or None; a slow backend can."""
    ran = {n: entry for n, entry in found["backends"].items() if not entry.get("problem")}
    if not ran:
        return "no backend can run here"
    wrong = [f"{name} {_state(entry)}" for name, entry in ran.items() if _state(entry) != _WORKS]
    return "; ".join(wrong) or None


def _failed(entry: dict[str, Any]) -> list[str]:
    """Name what has no number: a graph without any batch that ran, or the whole video."""
    failed = [
        graph
        for graph in ("predict", "decoder")
        if not any("ms" in cell for cell in entry.get(graph, {}).values())
    ]
    if "frames_per_second" not in entry["end_to_end"]:
        failed.append("a whole video")
    return failed


def _wrong(entry: dict[str, Any]) -> list[str]:
    """Name the graphs whose comparison failed or lies outside the limits."""
    parity = entry.get("parity", {})
    return [name for name, graph in parity.items() if "failed" in graph or graph.get("problems")]


def _state(entry: dict[str, Any]) -> str:
    """Say how far a backend came: it works where it compiles, agrees with the CPU and runs."""
    built = entry.get("build_seconds")
    if entry.get("problem"):
        return f"never run: {entry['problem']}".replace("|", "/")
    if isinstance(built, dict):
        return "does not compile"
    if _wrong(entry):
        return f"not shown to agree with the CPU: {', '.join(_wrong(entry))}"
    if "end_to_end" not in entry or not entry.get("parity"):
        return "not measured to the end"
    failed = _failed(entry)
    return f"fails at {', '.join(failed)}" if failed else _WORKS


def _speed(video: Any) -> str:
    if isinstance(video, dict) and "frames_per_second" in video:
        return f"{video['frames_per_second']:.2f}"
    return _cell(video)


def _parity(entry: dict[str, Any]) -> str:
    return ", ".join(f"{n} {_error(graph)}" for n, graph in entry.get("parity", {}).items()) or "–"


def _error(graph: dict[str, Any]) -> str:
    """Show the largest error of a graph and what is outside the limits, or why there is none."""
    if "failed" in graph:
        return _cell(graph)
    most = graph["most"]
    told = f"{most:.2g}" if isinstance(most, float) else str(most)
    problems = "; ".join(graph.get("problems", []))
    return f"{told} (OUTSIDE LIMITS: {problems})".replace("|", "/") if problems else told


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
    return "not measured" if value is None else f"{value:.1%}"


def _times(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}× the best PyTorch"
