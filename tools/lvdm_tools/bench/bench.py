"""`lvdm-tools bench`: one run over everything, what fails recorded beside what does not."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import Bundle
from lvdm_engines.opening import backend_report
from lvdm_rt import GenerateOptions
from lvdm_rt.options import resolve
from lvdm_tools.bench import machine, videos
from lvdm_tools.bench.clock import Found, attempt, failure
from lvdm_tools.bench.end_to_end import end_to_end
from lvdm_tools.bench.feeds import Effort, Ours
from lvdm_tools.bench.graphs import time_graphs
from lvdm_tools.bench.official_loop import COMPILED, EAGER, Official

SCHEMA = 1
FULL = Effort(1.0, 20.0, 256, 50, (64, 256, 1024, 8192), (1, 2, 4, 8, 16, 32), compiled=True)
QUICK = Effort(0.2, 0.0, 64, 50, (64, 128), (1, 4, 8), compiled=False)
PAPER_SIZE = Effort(10.0, 0.0, 0, 0, (), (), compiled=False, rounds=2)


@dataclass(frozen=True)
class Bench:
    """What to measure and whom to tell; `backends` none stands for all that are usable."""

    bundle: Bundle
    effort: Effort
    report: Callable[[str], None]
    save: Callable[[Found], None]
    backends: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    threads: int | None = None  # of every run
    memory: bool = False  # of single graphs too


def run(bench: Bench) -> Found:
    """Measure the sections asked for, or all; `bench.save` gets the report after each.

    The authors' code is given random weights of the same sizes, which cost the same.
    """
    if bench.threads:
        torch.set_num_threads(bench.threads)
    others, usable = machine.Others(), attempt(backend_report)
    refused = {n: why for n, why in usable.items() if why is not None}
    if failure(usable):
        refused = {"any backend": usable.pop("failed")}
    asked = tuple(n for n in usable if n not in refused and n in (bench.backends or usable))
    ours = Ours(bench.bundle, asked, SessionOptions(threads=bench.threads))
    found: Found = {
        "schema": SCHEMA,
        "bundle": bench.bundle.manifest.name,
        "machine": {**machine.describe(), "threads": torch.get_num_threads()},
        "refused": refused,
    }
    found["machine"]["peaks_gflop_per_s"] = attempt(
        machine.peaks, bench.effort.call_seconds, bench.threads
    )
    official = attempt(Official, bench.bundle.manifest)
    for name in bench.sections or SECTIONS:
        SECTIONS[name](bench, ours, official, found.setdefault(name, {}))
        found["machine"]["cores_of_others"] = attempt(others.cores)
        bench.save(derive(found))
    return derive(found)


def _graphs(bench: Bench, ours: Ours, official: Any, found: Found) -> None:
    timed = time_graphs(ours, official, bench.effort, memory=bench.memory)
    for name, entry in timed:
        bench.report(name)
        found[name] = entry


def _videos(bench: Bench, ours: Ours, official: Any, found: Found) -> None:
    effort, manifest = bench.effort, bench.bundle.manifest
    authors = {EAGER: official}
    if effort.compiled:
        authors[COMPILED] = attempt(partial(Official, manifest, compiled=True))
    equal = videos.equal_steps(effort.frames, effort.steps)
    usual = GenerateOptions(frames=effort.frames)
    measure = partial(videos.time_videos, ours)
    for name, options, beside in (("equal", equal, authors), ("default", usual, {})):
        settings = resolve(options, manifest)
        again = f" and {settings.refine} to refine" if settings.refine else ""
        told = f"{settings.frames} frames, {settings.sampler}, {settings.steps} steps{again}"
        bench.report(told)
        if name == "default" and settings == resolve(equal, manifest):
            ways = {backend: found["equal"]["ways"][backend] for backend in ours.backends}
        else:
            ways = attempt(measure, beside, options, effort.video_seconds)
            ways = {"all": ways} if failure(ways) else ways
        found[name] = {"settings": told, "ways": ways}


def _time(bench: Bench, ours: Ours, _: Any, found: Found) -> None:
    options = GenerateOptions(frames=bench.effort.frames)
    for name in ours.backends:
        bench.report(f"{name}: where the time goes")
        found[name] = attempt(end_to_end, ours.bundle, name, options, ours.options)


def _growth(bench: Bench, ours: Ours, _: Any, found: Found) -> None:
    effort = bench.effort
    backends = ours.backends if bench.sections else ours.backends[:1]
    for name in backends:
        for kind, size, entry in videos.time_growth(ours, name, effort.lengths, effort.numbers):
            bench.report(f"{name}: {kind} {size}")
            found.setdefault(name, {}).setdefault(kind, {})[size] = entry


SECTIONS: dict[str, Callable[[Bench, Ours, Any, Found], None]] = {
    "graphs": _graphs,
    "videos": _videos,
    "time": _time,
    "growth": _growth,
}


def derive(found: Found) -> Found:
    """Add what follows from the measured medians: rates, shares of the peak and ratios."""
    peaks = found["machine"]["peaks_gflop_per_s"]
    for entry in found.get("graphs", {}).values():
        ways = entry["ways"]
        for way in ways.values():
            if "ms" in way and entry["gflop"]:
                way["gflop_per_s"] = 1000 * entry["gflop"] / way["ms"]
                way["of_peak"] = {
                    n: way["gflop_per_s"] / p for n, p in peaks.items() if isinstance(p, float)
                }
        _ratios(ways, ways.get(EAGER, {}).get("ms"), "ms")
    told = found.get("videos", {})
    eager = told.get("equal", {}).get("ways", {}).get(EAGER, {}).get("seconds")
    for part in told.values():
        _ratios(part["ways"], eager, "seconds")
    for kinds in found.get("growth", {}).values():
        for sizes in kinds.values():
            for entry in sizes.values():
                if "seconds" in entry:
                    entry["ms_per_frame"] = 1000 * entry["seconds"] / entry["frames"]
    return found


def _ratios(ways: Found, eager: float | None, unit: str) -> None:
    """Say how many times as fast as torch eager each way is."""
    for way in ways.values():
        if eager is not None and isinstance(way, dict) and unit in way:
            way["times_eager"] = eager / way[unit]
