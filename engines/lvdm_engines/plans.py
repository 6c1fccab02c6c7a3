"""Compile the graphs of a bundle into plans for this machine: what `build-engines` calls."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvdm_engines.backends import library as libraries
from lvdm_engines.backends.driver import gpus
from lvdm_engines.backends.library import Here
from lvdm_engines.backends.plan_store import (
    Plan,
    differing_requests,
    plans_of,
    save_plan,
)
from lvdm_engines.backends.profiles import profiles_for
from lvdm_engines.backends.trt_build import Job, Step, compile_plan
from lvdm_engines.backends.trt_inspect import summary_of
from lvdm_engines.errors import BackendError
from lvdm_engines.plan_facts import Fingerprint, PlanFacts, PlanOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from lvdm_engines.backends.library import Library
    from lvdm_engines.bundle import Bundle, GraphSource

__all__ = ["Built", "PlanOptions", "Step", "build_plans", "graph_files", "stored_plans"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """One compiled file: the graphs it serves, its plan, and whether it was there already."""

    graphs: tuple[str, ...]
    plan: Plan
    reused: bool


def build_plans(
    bundle: Bundle,
    backend: str,
    options: PlanOptions | None = None,
    *,
    progress: Callable[[str, Step], None] | None = None,
    force: bool = False,
    device: int = 0,
) -> list[Built]:
    """Compile every graph file of a bundle for a backend; equal plans that exist are kept.

    The backends cpu and cuda run the ONNX files themselves: there is nothing to compile and the
    list is empty. `progress` gets the file's name and the step.

    Raises BackendError where the library or the GPU is missing, ExportError for a graph it cannot
    compile, BundleError where the bundle is damaged or cannot be written.
    """
    if backend in ("cpu", "cuda"):
        return []
    if backend not in libraries.EXTRAS:
        raise BackendError(f"got backend {backend!r}, expected {', '.join(libraries.EXTRAS)}")
    library = libraries.load_library(backend)
    here = _building_here(library, device)
    wanted = options or PlanOptions()
    built = []
    for names in graph_files(bundle):
        source = bundle.graph(names[0])
        profiles = profiles_for(bundle.manifest, names, wanted)
        job = Job(source.name, source.verified(), source.facts, profiles, wanted)
        fingerprint = _fingerprint(source, here, job)
        found = None if force else _existing(source, fingerprint)
        tell = None if progress is None else _told(progress, job.path.name)
        plan = found or _build(source, library, job, fingerprint, tell)
        built.append(Built(names, plan, found is not None))
    return built


def stored_plans(bundle: Bundle) -> dict[str, list[Plan]]:
    """Return every plan that a bundle holds, fitting this machine or not, by graph."""
    return {name: plans_of(bundle.graph(name)) for name in bundle.manifest.graphs}


def graph_files(bundle: Bundle) -> list[tuple[str, ...]]:
    """Return the names of the graphs that are one file with the same tensors, together."""
    groups: dict[str, list[str]] = {}
    graphs = bundle.manifest.graphs
    for name, facts in graphs.items():
        twin = next((first for first in groups if graphs[first] == facts), name)
        groups.setdefault(twin, []).append(name)
    return [tuple(names) for names in groups.values()]


def _building_here(library: Library, device: int) -> Here:
    """Return what new plans will be for; TensorRT-RTX can compile without any GPU."""
    if library.portable and not gpus():
        return Here(library.name, library.version, libraries.ANY, libraries.ANY)
    return libraries.whereabouts(library, device)


def _fingerprint(source: GraphSource, here: Here, job: Job) -> Fingerprint:
    portable = libraries.load_library(here.library).portable
    return Fingerprint(
        graph=job.path.stem,
        library=here.library,
        version=here.version,
        gpu=libraries.ANY if portable else here.gpu,
        capability="+".join(job.options.targets) or libraries.ANY if portable else here.capability,
        onnx_sha256=source.facts.sha256,
        data_sha256=source.facts.data_sha256,
        precision=source.facts.precision,
        profiles=job.profiles,
        options=job.options,
    )


def _existing(source: GraphSource, fingerprint: Fingerprint) -> Plan | None:
    for plan in plans_of(source):
        different = differing_requests(plan.facts.fingerprint, fingerprint)
        if not different and plan.path.is_file():
            return plan
        _log.info("%s is kept beside the new plan (%s)", plan.path, "; ".join(different))
    return None


def _build(
    source: GraphSource,
    library: Library,
    job: Job,
    fingerprint: Fingerprint,
    tell: Callable[[Step], None] | None,
) -> Plan:
    started = time.perf_counter()
    plan = compile_plan(job, library, tell)
    data = memoryview(plan)
    facts = PlanFacts(
        file=f"{job.path.stem}.plan",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=data.nbytes,
        fingerprint=fingerprint,
        seconds=round(time.perf_counter() - started, 1),
        built_at=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        summary=summary_of(library, plan) if gpus() else {},
    )
    return save_plan(source, facts, data)


def _told(progress: Callable[[str, Step], None], file: str) -> Callable[[Step], None]:
    return lambda step: progress(file, step)
