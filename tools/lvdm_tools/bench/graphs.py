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
from lvdm_tools.bench.clock import Found, attempt, failure, milliseconds, peak_mib
from lvdm_tools.bench.feeds import Effort, Ours, random_feeds, run_once
from lvdm_tools.bench.official_loop import EAGER, Official
from lvdm_tools.bench.official_loop import run_once as run_official_once

Call = Callable[[], object]


def time_graphs(
    ours: Ours, official: Official | Found, effort: Effort, *, memory: bool = False
) -> Iterator[tuple[str, Found]]:
    """Yield a name and the numbers of every graph and batch; `memory` takes a process for each.

    GFLOP are counted once for all, in torch; where torch does not know the networks, the manifest's
    count stands in, which is that of the longest clip.
    """
    bundle = ours.bundle
    for graph in _distinct(bundle):
        for batch in _batches(bundle, graph):
            work = bundle.manifest.graphs[graph].gflop
            if isinstance(official, Official):
                work = official.gflop[graph]
            entry: Found = {"batch": batch, "gflop": None if work is None else work * batch}
            entry["ways"] = _time(ours, official, effort, graph, batch)
            if memory and batch == 1:
                for name, way in entry["ways"].items():
                    once: Any = partial(run_once, bundle.path, graph, name, ours.options)
                    if name == EAGER:
                        once = partial(run_official_once, bundle.path, graph)
                    way["peak_mib"] = peak_mib(once)
            yield f"{graph} × {batch}", entry


def _time(ours: Ours, official: Official | Found, effort: Effort, graph: str, batch: int) -> Found:
    feeds = random_feeds(ours.bundle, graph, batch)
    calls: dict[str, Call] = {}
    failed: Found = {}
    with ExitStack() as stack:
        for name in ours.backends:
            session = attempt(open_session, ours.bundle, graph, name, ours.options)
            if failure(session):
                failed[name] = session
            else:
                calls[name] = partial(stack.enter_context(session).run, feeds)
        if isinstance(official, Official):
            calls[EAGER] = partial(official.run, graph, feeds)
        else:
            failed[EAGER] = official
        return milliseconds(calls, effort.call_seconds, effort.rounds) | failed


def _distinct(bundle: Bundle) -> list[str]:
    """Return the graphs, without those that are another's file on clips of the same length."""
    model = bundle.manifest.model
    found: dict[tuple[str, int], str] = {}
    for name, facts in bundle.manifest.graphs.items():
        if name != "text_encoder":
            found.setdefault((facts.file, max(model.clips(name), default=0)), name)
    return list(found.values())


def _batches(bundle: Bundle, graph: str) -> tuple[int, ...]:
    """Return 1 and, for a denoiser, the batch that the runtime uses unless asked."""
    usual = resolve(GenerateOptions(), bundle.manifest).batch_size
    return (1, usual) if graph in DENOISERS and usual != 1 else (1,)
