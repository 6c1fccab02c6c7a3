"""Each graph of a bundle: milliseconds and GFLOP/s of our backends and of torch, side by side."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from lvdm_engines.bundle import Bundle
from lvdm_engines.manifest import DENOISERS
from lvdm_engines.opening import open_session
from lvdm_rt import GenerateOptions
from lvdm_rt.options import resolve
from lvdm_tools.bench.clock import Found, alone, attempt, failure, milliseconds
from lvdm_tools.bench.feeds import random_feeds, run_once
from lvdm_tools.bench.official_loop import EAGER, Official
from lvdm_tools.bench.official_loop import run_once as run_official_once

Call = Callable[[], object]


def time_graphs(
    bundle: Bundle,
    backends: tuple[str, ...],
    official: Official | Found,
    seconds: float,
    *,
    memory: bool = False,
) -> Iterator[tuple[str, Found]]:
    """Yield a name and the numbers of every graph and batch; `memory` takes a process for each.

    GFLOP are counted once for all, in torch; where torch does not know the networks, the manifest's
    count stands in, which is that of the longest clip.
    """
    for graph in _distinct(bundle):
        for batch in _batches(bundle, graph):
            work = bundle.manifest.graphs[graph].gflop
            if isinstance(official, Official):
                work = official.gflop[graph]
            entry: Found = {"batch": batch, "gflop": None if work is None else work * batch}
            entry["ways"] = _time(bundle, graph, batch, backends, official, seconds)
            if memory and batch == 1:
                for name, way in entry["ways"].items():
                    measure: Any = run_official_once if name == EAGER else run_once
                    peak = attempt(alone, measure, bundle.path, graph, name)
                    way["peak_mib"] = failure(peak) or peak["peak_mib"]
            yield f"{graph} × {batch}", entry


def _time(
    bundle: Bundle,
    graph: str,
    batch: int,
    backends: tuple[str, ...],
    official: Official | Found,
    seconds: float,
) -> Found:
    feeds = random_feeds(bundle, graph, batch)
    calls: dict[str, Call] = {}
    failed: Found = {}
    with ExitStack() as stack:
        for name in backends:
            session = attempt(open_session, bundle, graph, name)
            if failure(session):
                failed[name] = session
            else:
                calls[name] = partial(stack.enter_context(session).run, feeds)
        if isinstance(official, Official):
            calls[EAGER] = partial(official.run, graph, feeds)
        else:
            failed[EAGER] = official
        return milliseconds(calls, seconds) | failed


def _distinct(bundle: Bundle) -> list[str]:
    """Return the graphs, without those that are another's file on clips of the same length."""
    model = bundle.manifest.model
    found: dict[tuple[str, int], str] = {}
    for name, facts in bundle.manifest.graphs.items():
        if name != "text_encoder":
            found.setdefault((facts.file, getattr(getattr(model, name, None), "clip", 0)), name)
    return list(found.values())


def _batches(bundle: Bundle, graph: str) -> tuple[int, ...]:
    """Return 1 and, for a denoiser, the batch that the runtime uses unless asked."""
    usual = resolve(GenerateOptions(), bundle.manifest).batch_size
    return (1, usual) if graph in DENOISERS and usual != 1 else (1,)
