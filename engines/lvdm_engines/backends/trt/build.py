"""Compile the graphs of a bundle into plans for this machine: what `build-engines` calls."""

import datetime as dt
import hashlib
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from msgspec.structs import replace

from lvdm_engines.backends.backend import BACKENDS
from lvdm_engines.backends.gpu.cuda_device import CudaDevice
from lvdm_engines.backends.gpu.driver import gpus
from lvdm_engines.backends.plan_facts import Fingerprint, PlanFacts, PlanOptions, rebuild_command
from lvdm_engines.backends.trt import library as libraries
from lvdm_engines.backends.trt.compile import CompileJob, Step, check_options, compile_plan
from lvdm_engines.backends.trt.inspection import summary_of
from lvdm_engines.backends.trt.library import TargetMachine, TrtLibrary
from lvdm_engines.backends.trt.profiles import graph_files
from lvdm_engines.backends.trt.refit import check_library, refit
from lvdm_engines.backends.trt.store import (
    CompiledPlan,
    differences,
    find_plan,
    fingerprint_of,
    plans_of,
    save_plan,
)
from lvdm_engines.bundle import Bundle, GraphSource
from lvdm_engines.errors import BackendError, BundleError, quoted
from lvdm_engines.manifest import Precision

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """One compiled file: the graphs it serves, its plan, and whether it was there already."""

    graphs: tuple[str, ...]
    plan: CompiledPlan
    reused: bool


def check_build(backend: str, options: PlanOptions | None = None, *, device: int = 0) -> None:
    """Find out whether `build_plans` could start, before hours of export.

    Raises BackendError where the library or the GPU is missing, or cannot do what is asked.
    """
    if backend in ("cpu", "cuda"):
        return
    library = _compiler(backend)
    _building_here(library, device)
    check_options(library, options or PlanOptions())


def check_refit(
    former: Bundle,
    backend: str,
    options: PlanOptions,
    precision: Precision,
    graphs: Collection[str],
    *,
    device: int = 0,
) -> None:
    """Find out whether `refit_plans` could start with an export to come, before hours of it.

    `precision` and `graphs` are what the export will have. Raises BackendError where there is no
    plan to begin with, or nothing that could refit it.
    """
    library = _compiler(backend)
    here = libraries.target_machine(library, device)
    check_library(library)
    wanted = replace(options, refit=True)
    check_options(library, wanted)
    for name in (n for n in graphs if n in former.manifest.graphs):
        source = former.graph(name)
        if source.facts.precision != precision:
            raise BackendError(
                f"{former.path}: got a graph {name!r} in {source.facts.precision}, expected "
                f"{precision} like the new export; give --precision {source.facts.precision}"
            )
        find_plan(source, here, wanted)


def _compiler(backend: str) -> TrtLibrary:
    if backend not in libraries.EXTRAS:
        raise BackendError(f"got backend {quoted(backend)}, expected {', '.join(libraries.EXTRAS)}")
    library = libraries.load_library(backend)
    # plans of TensorRT-RTX may be for another GPU than the one at hand
    problem = libraries.too_old(library) or (
        None if library.portable else libraries.unsupported_gpu(library)
    )
    if problem:
        raise BackendError(f"{backend}: {problem}")
    return library


def build_plans(
    bundle: Bundle,
    backend: str,
    options: PlanOptions | None = None,
    *,
    progress: Callable[[str, Step], None] | None = None,
    force: bool = False,
    device: int = 0,
) -> list[Built]:
    """Compile every graph file of a bundle for a backend on GPU `device`; equal plans are kept.

    The other backends run the ONNX files themselves: there is nothing to compile and the list is
    empty. `progress` gets the file's name and the step.

    Raises BackendError where the library or the GPU is missing, ExportError for a graph it cannot
    compile, BundleError where the bundle is damaged or cannot be written.
    """
    if backend in BACKENDS and backend not in libraries.EXTRAS:
        return []
    library = _compiler(backend)
    here = _building_here(library, device)
    activate = _activation(library, device)
    built = []
    for names in graph_files(bundle.manifest):
        source = bundle.graph(names[0])
        path = source.verified()
        made = fingerprint_of(source, bundle.manifest, here, options or PlanOptions())
        plan = None if force else _existing(source, made)
        reused = plan is not None
        if plan is None:
            job = CompileJob(source.name, path, source.facts, made.profiles, made.options)
            tell = None if progress is None else partial(progress, path.name)
            compiling = partial(compile_plan, job, library, tell, activate)
            plan = _save(compiling, source, made, library, activate)
        built.append(Built(names, plan, reused))
    return built


def refit_plans(
    bundle: Bundle, former: Bundle, backend: str, options: PlanOptions, *, device: int = 0
) -> list[Built]:
    """Make the plans of a bundle out of those of a former export of the same graphs.

    Only the weights are exchanged, nothing is compiled; the former plans must have been built with
    `options`, `refit` among them.

    Raises BackendError where there is no such plan or it was made for something else, ExportError
    where the graphs differ in more than their weights.
    """
    library = _compiler(backend)
    here = libraries.target_machine(library, device)
    check_library(library)
    activate = _activation(library, device)
    if activate is not None:
        activate()
    wanted = replace(options, refit=True)
    built = []
    for names in graph_files(bundle.manifest):
        source = bundle.graph(names[0])
        old = find_plan(former.graph(names[0]), here, wanted)
        made = fingerprint_of(source, bundle.manifest, here, wanted)
        _check_weights_only(old, made, source)
        plan = _save(partial(refit, old, source, library), source, made, library, activate)
        built.append(Built(names, plan, reused=False))
    return built


def _check_weights_only(old: CompiledPlan, made: Fingerprint, source: GraphSource) -> None:
    """Refuse a plan that differs from the one to be made in more than its weights."""
    had = old.facts.fingerprint
    same_weights = replace(made, onnx_sha256=had.onnx_sha256, data_sha256=had.data_sha256)
    different = differences(had, same_weights)
    if different:
        command = rebuild_command(str(source.folder), made.library, made.options)
        raise BackendError(
            f"{old.path}: cannot take other weights: {'; '.join(different)}; "
            f"compile instead: {command}"
        )


def stored_plans(bundle: Bundle) -> dict[str, list[CompiledPlan]]:
    """Return every plan that a bundle holds, fitting this machine or not, by graph."""
    return {name: plans_of(bundle.graph(name)) for name in bundle.manifest.graphs}


def _building_here(library: TrtLibrary, device: int) -> TargetMachine:
    """Return what new plans will be for; TensorRT-RTX can compile without any GPU."""
    if library.portable and not gpus():
        return TargetMachine(library.name, library.version, libraries.ANY, libraries.ANY)
    return libraries.target_machine(library, device)


def _activation(library: TrtLibrary, device: int) -> Callable[[], None] | None:
    """Return what makes GPU `device` current in a thread, or None where nothing needs it."""
    if library.portable and not gpus():
        return None
    problem = libraries.lacks_cuda(library.name)
    if problem is None:
        return CudaDevice(device).activate
    if device == 0:  # which the library takes by itself
        return None
    raise BackendError(f"{library.name}: to build on GPU {device}: {problem}")


def _existing(source: GraphSource, made: Fingerprint) -> CompiledPlan | None:
    """Return the plan that equals the one to be made, if there is one and it is whole."""
    for plan in plans_of(source):
        different = differences(plan.facts.fingerprint, made)
        if not different and plan.path.is_file():
            try:
                plan.read()
            except BundleError as err:
                _log.warning("%s; it is built anew", err)
                return None
            return plan
        _log.info("%s is kept beside the new plan (%s)", plan.path, "; ".join(different))
    return None


def _save(
    make: Callable[[], Any],
    source: GraphSource,
    made: Fingerprint,
    library: TrtLibrary,
    activate: Callable[[], None] | None,
) -> CompiledPlan:
    """Make a plan, time it, and keep it with what it says of itself."""
    started = time.perf_counter()
    plan = make()
    seconds = time.perf_counter() - started
    if activate is not None:
        activate()  # in this thread
    data = memoryview(plan)
    facts = PlanFacts(
        file=f"{made.graph}.plan",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=data.nbytes,
        fingerprint=made,
        seconds=round(seconds, 1),
        built_at=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        summary=summary_of(library, plan) if gpus() else {},
    )
    return save_plan(source, facts, data)
