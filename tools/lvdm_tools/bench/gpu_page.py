"""What a GPU check found, judged against the targets and told as a Markdown page."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

Found = dict[str, Any]  # everything that was measured, as it is saved
Entry = dict[str, Any]  # what was measured of one backend, or one variant of PyTorch
Target = tuple[str, str, bool | None]  # what is wanted, what was measured, and whether it meets it

PEAK_SHARE = 0.40  # of the measured dense half precision peak, at batch 8 or more
SPEED_UP = 1.3  # over the best PyTorch variant
HOST_SHARE = 0.05  # of the wall time of a whole video
_BATCH = 8
_TIMES = "{:.2f}× the best PyTorch"
_WORKS = "works here"
_ABOUT_TORCH = (
    "PyTorch has its inputs and outputs on the device already. It may use TF32, cuDNN picks "
    'convolutions by trial, and torch.compile works in mode "reduce-overhead" for one shape '
    "at a time."
)
_ABOUT_COPIES = (
    "The sampler runs on the host, so these copies are made at every step; leaving latents on the "
    "device could save this much at most. Masks, noise levels and contexts are uploaded when they "
    "change."
)


def judge(found: Found) -> list[dict[str, Any]]:
    """Compare what was measured with the targets; what is missing is neither met nor failed."""
    return [
        {"backend": name, "wanted": wanted, "got": got, "met": met}
        for name, entry in found["backends"].items()
        if name.startswith("tensorrt") and not entry.get("problem")
        for wanted, got, met in (_denoiser(found, entry), _decoder(found, entry), _host(entry))
    ]


def _denoiser(found: Found, entry: Entry) -> Target:
    """Say what the worst of the batches measured reaches, and whether all reach a target.

    A batch misses only if both alternatives were measured and neither is reached.
    """
    wanted = f"every batch ≥ {_BATCH}: ≥ {PEAK_SHARE:.0%} of peak or ≥ {SPEED_UP}× PyTorch"
    batches = [b for b in _batches("predict", [entry]) if int(b) >= _BATCH]
    missing = [b for b in batches if _ms(entry, "predict", b) is None]
    measured = [b for b in batches if b not in missing]
    shares = [peak_share(found, entry, "predict", b) for b in measured]
    faster = [_speed_up(found, entry, "predict", b) for b in measured]
    least = f"{_told(_least(shares))} of peak, {_told(_least(faster), _TIMES)}"
    lost = f"; batch {', '.join(missing)} did not run" if missing else ""
    got = f"{least} (worst of batch {', '.join(measured) or 'none'}{lost})"
    verdicts = [_either(*pair) for pair in zip(shares, faster, strict=True)]
    unknown = None in verdicts or missing or not verdicts
    return f"denoiser, {wanted}", got, False if False in verdicts else None if unknown else True


def _either(share: float | None, faster: float | None) -> bool | None:
    reached = _at_least(PEAK_SHARE, share), _at_least(SPEED_UP, faster)
    return True if True in reached else None if None in reached else False


def _decoder(found: Found, entry: Entry) -> Target:
    faster = _speed_up(found, entry, "decoder", "1")
    wanted = f"decoder: ≥ {SPEED_UP}× the best PyTorch"
    return wanted, _told(faster, _TIMES), _at_least(SPEED_UP, faster)


def _host(entry: Entry) -> Target:
    share = host_share(entry)
    wanted = f"host work and copies: < {HOST_SHARE:.0%} of wall time"
    return wanted, _told(share), None if share is None else share < HOST_SHARE


def _at_least(limit: float, value: float | None) -> bool | None:
    return None if value is None else value >= limit


def host_share(entry: Entry) -> float | None:
    """Return the share of a whole video's time in which the device does not compute.

    Measured: the wall time of the video, less the device's time for the same runs.
    """
    video = entry.get("end_to_end", {})
    if "device_seconds" not in video:
        return None
    return float(max(0.0, 1 - video["device_seconds"] / video["seconds"]))


def peak_share(found: Found, entry: Entry, graph: str, batch: str) -> float | None:
    """Return the arithmetic of a run as a share of a GPU's measured matrix peak."""
    ms, peak = _ms(entry, graph, batch), found.get("peak_tflops")
    if ms is None or not isinstance(peak, float) or found["gpu"] is None:
        return None
    return float(found["gflop"][graph] * int(batch) / ms / peak)


def _speed_up(found: Found, entry: Entry, graph: str, batch: str) -> float | None:
    ours = _ms(entry, graph, batch)
    variants = (variant.get(graph, {}).get(batch) for variant in found["torch"].values())
    theirs = [ms for ms in variants if isinstance(ms, float)]
    return None if ours is None or not theirs else min(theirs) / ours


def _ms(entry: Entry, graph: str, batch: str) -> float | None:
    cell = entry.get(graph, {}).get(batch)
    return cell.get("ms") if isinstance(cell, dict) else None


def _least(values: Iterable[float | None]) -> float | None:
    return min((v for v in values if v is not None), default=None)


def _batches(graph: str, entries: Iterable[Entry]) -> list[str]:
    return sorted({batch for entry in entries for batch in entry.get(graph, {})}, key=int)


def verdict(found: Found) -> str | None:
    """Say why a finished check cannot count as passed, or None; a slow backend can."""
    ran = {n: _state(entry) for n, entry in found["backends"].items() if not entry.get("problem")}
    if not ran:
        return "no backend can run here"
    return "; ".join(f"{name} {state}" for name, state in ran.items() if state != _WORKS) or None


def _state(entry: Entry) -> str:
    """Say how far a backend came: it works where it compiles, agrees with the CPU and runs."""
    if entry.get("problem"):
        return f"never run: {entry['problem']}"
    if isinstance(entry.get("build_seconds"), dict):
        return "does not compile"
    parity, video = entry.get("parity", {}), entry.get("end_to_end")
    wrong = [name for name, graph in parity.items() if "failed" in graph or graph.get("problems")]
    if wrong:
        return f"not shown to agree with the CPU: {', '.join(wrong)}"
    if video is None or not parity:
        return "not measured to the end"
    failed = [
        graph
        for graph in ("predict", "decoder")
        if not any("ms" in cell for cell in entry.get(graph, {}).values())
    ]
    failed += [] if "frames_per_second" in video else ["a whole video"]
    return f"fails at {', '.join(failed)}" if failed else _WORKS


def page(found: Found) -> str:
    """Return the whole page."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Found) -> Iterator[str]:
    yield from _header(found)
    backends, everyone = found["backends"], {**found["torch"], **found["backends"]}
    yield from table(
        "Backends",
        ("backend", "state", "compiled in", "largest error"),
        (
            (name, _state(entry), _number(entry.get("build_seconds"), "s"), _parity(entry))
            for name, entry in backends.items()
        ),
    )
    title = "Milliseconds per denoiser step, copies included"
    yield from _by_batch(title, "predict", everyone, partial(_time, found, "predict"))
    yield from ("", _ABOUT_TORCH)
    title = "Milliseconds per decoded clip, copies included"
    yield from _by_batch(title, "decoder", everyone, partial(_time, found, "decoder"))
    title = "Latents and timestep in, eps out: copies per step, measured (of the step)"
    yield from _by_batch(title, "predict", backends, _copies)
    yield from ("", _ABOUT_COPIES)
    yield from table(
        "From end to end (host and copies, measured: wall time less the device's time)",
        ("backend", "frames per second", "host and copies"),
        (
            (name, cell(entry.get("end_to_end"), "frames_per_second"), _told(host_share(entry)))
            for name, entry in backends.items()
        ),
    )
    met = {True: "yes", False: "no", None: "not measured"}
    targets = [(t["backend"], t["wanted"], t["got"], met[t["met"]]) for t in found["targets"]]
    none = [("none", "no TensorRT backend ran here", "", "not measured")]
    yield from table("Targets", ("backend", "wanted", "got", "met"), targets or none)


def _header(found: Found) -> Iterator[str]:
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


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table under its title."""
    head = _row(columns)
    yield from ("", f"## {title}", "", head, "|---" * (head.count("|") - 1) + "|")
    yield from map(_row, rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _by_batch(
    title: str, graph: str, entries: dict[str, Entry], cell: Callable[[Entry, str], str]
) -> Iterator[str]:
    batches = _batches(graph, entries.values())
    rows = ((name, *(cell(entry, b) for b in batches)) for name, entry in entries.items())
    return table(title, ("", *(f"batch {b}" for b in batches)), rows)


def _time(found: Found, graph: str, entry: Entry, batch: str) -> str:
    text, share = cell(entry.get(graph, {}).get(batch)), peak_share(found, entry, graph, batch)
    return text if share is None else f"{text} ({share:.0%} of peak)"


def _copies(entry: Entry, batch: str) -> str:
    """Show what the way to the device and back takes of a step."""
    cell = entry.get("predict", {}).get(batch, {})
    if "copies_ms" not in cell:
        return "not measured"
    return f"{cell['copies_ms']:.3f} ({cell['copies_ms'] / cell['ms']:.1%})"


def _parity(entry: Entry) -> str:
    return ", ".join(f"{n} {_error(graph)}" for n, graph in entry.get("parity", {}).items()) or "–"


def _error(graph: dict[str, Any]) -> str:
    """Show the largest error of a graph and what is outside the limits, or why there is none."""
    if "failed" in graph:
        return cell(graph)
    told = f"{graph['most']:.2g}" if isinstance(graph["most"], float) else str(graph["most"])
    problems = "; ".join(graph.get("problems", []))
    return f"{told} (OUTSIDE LIMITS: {problems})" if problems else told


def cell(value: Any, key: str = "ms") -> str:
    """Show a number, the reason for a missing one, or that nobody tried."""
    if isinstance(value, dict):
        if "failed" in value:
            return f"failed: {value['failed']}"
        return f"{value[key]:.2f}" if key in value else "–"
    return "never run" if value is None else f"{value:.2f}"


def _number(value: Any, unit: str) -> str:
    return f"{value:.1f} {unit}" if isinstance(value, float) else cell(value)


def _told(value: float | None, form: str = "{:.1%}") -> str:
    return "not measured" if value is None else form.format(value)
