"""Which of two backends of the CPU runs a graph faster here: tried once, then remembered.

Knows bundles, open sessions and a clock; of engines no more than the names of their packages.
"""

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from importlib import metadata
from statistics import median
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from lvdm_engines.backends.backend import Opener, SessionOptions
from lvdm_engines.backends.processor import processor
from lvdm_engines.backends.user_folders import keep_cached, read_cached
from lvdm_engines.bundle import Bundle
from lvdm_engines.contract import graph_tensors
from lvdm_engines.errors import BackendError, SessionError
from lvdm_engines.manifest import DENOISERS, TensorSpec
from lvdm_engines.session import Session

_log = logging.getLogger(__name__)

_PACKAGES = ("openvino", "onnxruntime", "onnxruntime-gpu")
_BATCH = 4  # clips of a call, unless asked otherwise
_COSTLY = 100.0  # GFLOP of such a call, above which one clip has to do
_WORTH = 1.1  # times as fast, for compiling takes seconds that the other backend does not need
_ROUNDS, _LEAST = 9, 3
_SECONDS = 1.0  # after which no round begins but the least
_FORMAT = 1  # of what is remembered, and of this rule: raise it when either changes

_known: dict[str, "Trial"] = {}  # where nothing can be kept, it still is not tried twice

Shapes = Mapping[str, tuple[int, ...]]
Seconds = Annotated[float, Meta(gt=0)]


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Median seconds of a run, on the backend that is tried and on the one it would replace."""

    tried: Seconds
    other: Seconds

    def __str__(self) -> str:
        return f"{1000 * self.tried:.3g} ms a run against {1000 * self.other:.3g} on cpu"


def check_worth(
    bundle: Bundle, graph: str, options: SessionOptions, tried: Opener, other: Opener
) -> str:
    """Return in words how much faster a graph runs on the backend that is tried.

    Graphs that are one file get one answer. Raises BackendError, in words as well, where it is not
    fast enough, or where it does not run.
    """
    facts = bundle.graph(graph).facts
    shapes = usual_shapes(bundle, graph)
    packages = [_version(name) for name in _PACKAGES]
    name, instructions = processor()
    threads = options.threads, os.cpu_count()
    machine = (name, sorted(instructions), threads, options.precision)
    decides = (_FORMAT, facts.sha256, facts.data_sha256, packages, machine, shapes)
    digest = hashlib.sha256(msgspec.json.encode(decides, order="sorted")).hexdigest()[:32]
    try:
        found = compare_once(graph, f"trials/{digest}.json", tried, other, shapes)
    except SessionError as err:
        raise BackendError(str(err)) from err
    if found.other < _WORTH * found.tried:
        raise BackendError(str(found))
    return str(found)


def usual_shapes(bundle: Bundle, graph: str) -> Shapes:
    """Return the shapes that runs of a graph's file usually have.

    Whole clips, the longest of those that graphs in this file have; four of a denoiser's.
    """
    facts, model = bundle.manifest.graphs[graph], bundle.manifest.model
    several = graph in DENOISERS and (facts.gflop or 0.0) * _BATCH <= _COSTLY
    rows = _BATCH if several else 1
    twins = [name for name, other in bundle.manifest.graphs.items() if other.files == facts.files]
    longest = max(twins, key=lambda name: max(model.clips(name), default=0))
    required, optional, _ = graph_tensors(longest, model)
    sizes = {spec.name: spec.shape for spec in (*required, *optional)}
    return {
        spec.name: tuple(n if isinstance(n, int) else rows for n in sizes[spec.name])
        for spec in facts.inputs
    }


def compare_once(graph: str, name: str, tried: Opener, other: Opener, shapes: Shapes) -> Trial:
    """Time two backends by turns on the same inputs, unless the answer is kept under `name`.

    Raises SessionError where either cannot be opened or run.
    """
    found = _known.get(name) or _remembered(name)
    if found is None:
        _log.info("%s: trying which backend is faster here, once", graph)
        with tried() as first, other() as second:
            found = _time(first, second, shapes)
        keep_cached(name, msgspec.json.encode(found))
    _known[name] = found
    return found


def _remembered(name: str) -> Trial | None:
    try:
        return msgspec.json.decode(read_cached(name) or b"", type=Trial)
    except msgspec.MsgspecError:
        return None


def _time(first: Session, second: Session, shapes: Shapes) -> Trial:
    feeds = _feeds(first.inputs, shapes)
    seconds: tuple[list[float], list[float]] = ([], [])
    for session in (first, second):
        session.run(feeds)  # compiles, and allocates
    started = time.perf_counter()
    for done in range(_ROUNDS):
        if done >= _LEAST and time.perf_counter() - started > _SECONDS:
            break
        for session, taken in zip((first, second), seconds, strict=True):
            before = time.perf_counter()
            session.run(feeds)
            taken.append(time.perf_counter() - before)
    return Trial(*map(median, seconds))


def _feeds(specs: tuple[TensorSpec, ...], shapes: Shapes) -> dict[str, NDArray[Any]]:
    """Make inputs; whole numbers, such as steps and tokens, are 0, which all of them may be."""
    rng = np.random.default_rng(0)
    return {
        spec.name: rng.standard_normal(shapes[spec.name]).astype(spec.dtype)
        if spec.dtype.startswith("float")
        else np.zeros(shapes[spec.name], spec.dtype)
        for spec in specs
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
