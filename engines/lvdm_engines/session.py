"""The seam between models and the code that runs them: what an open engine is, and its feeds.

`open_session` is the only place that chooses a backend.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import BACKENDS, SessionOptions, load_backend
from lvdm_engines.bundle import Bundle
from lvdm_engines.errors import BackendError, SessionError
from lvdm_engines.manifest import TensorSpec

_log = logging.getLogger(__name__)


class Session(Protocol):
    """One open graph. Runs may come from several threads; the GIL is released while running."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `run` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `run` gives."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs; the arrays belong to the caller and are never written again.

        Raises SessionError for wrong feeds or a failed run, DeviceMemoryError when out of memory.
        """

    def close(self) -> None:
        """Free the engine; closing twice is fine, running afterwards is a SessionError."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True)
class Choice:
    """Which backend runs a graph, and why those before it in the order do not."""

    backend: str
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        reasons = "; ".join(f"not {name}: {why}" for name, why in self.refused.items())
        return f"{self.backend} ({reasons})" if reasons else self.backend


def open_session(
    bundle: Bundle, graph: str, backend: str = "auto", options: SessionOptions | None = None
) -> Session:
    """Verify a graph of a bundle and open it on a backend.

    `auto` takes the first usable of tensorrt, tensorrt-rtx, cuda, cpu, and logs which and why.

    Raises BundleError for a missing, damaged or contradictory graph, BackendError for a backend
    that cannot run it, with the way to fix that.
    """
    wanted = options or SessionOptions()
    choice = choose_backend(bundle, graph, backend, wanted)
    _log.info("%s runs on %s", graph, choice)
    return load_backend(choice.backend).open(bundle.graph(graph), wanted)


def open_sessions(
    bundle: Bundle,
    graphs: Sequence[str],
    backend: str = "auto",
    options: SessionOptions | None = None,
) -> dict[str, Session]:
    """Open several graphs; those that are one file with the same tensors share one session.

    Raises what `open_session` raises, after closing what was open.
    """
    opened: dict[str, Session] = {}
    try:
        for name in graphs:
            facts = bundle.graph(name).facts
            twin = next((o for o in opened if bundle.graph(o).facts == facts), None)
            opened[name] = opened[twin] if twin else open_session(bundle, name, backend, options)
    except BaseException:
        for session in opened.values():
            session.close()
        raise
    return opened


def choose_backend(
    bundle: Bundle, graph: str, backend: str = "auto", options: SessionOptions | None = None
) -> Choice:
    """Return the backend that `open_session` would take for a graph.

    Raises BackendError for an unknown name, or if nothing can run the graph.
    """
    source = bundle.graph(graph)
    if backend == "auto":
        candidates: Sequence[str] = BACKENDS
    elif backend in BACKENDS:
        candidates = [backend]
    else:
        raise BackendError(
            f"got backend {backend!r}, expected auto or one of {', '.join(BACKENDS)}"
        )
    refused: dict[str, str] = {}
    for name in candidates:
        found = load_backend(name)
        why = found.unusable() or found.lacking(source, options or SessionOptions())
        if why is None:
            return Choice(name, refused)
        refused[name] = why
    reasons = "; ".join(f"{name} is not usable: {why}" for name, why in refused.items())
    raise BackendError(f"graph {graph!r}: {reasons}")


def backend_report() -> dict[str, str | None]:
    """Return for every backend why this machine cannot run it, or None where it can."""
    return {name: load_backend(name).unusable() for name in BACKENDS}


def check_feeds(
    specs: Sequence[TensorSpec], feeds: Mapping[str, Any], graph: str = "graph"
) -> None:
    """Check names, dtypes and shapes; a free dimension must agree wherever its name stands.

    Raises SessionError that names the tensor, what was received and what was expected.
    """
    names = [spec.name for spec in specs]
    missing = [name for name in names if name not in feeds]
    extra = [name for name in feeds if name not in names]
    if missing or extra:
        raise SessionError(
            f"{graph}: got inputs {_listed(feeds)}, expected {_listed(names)}; "
            f"missing: {_listed(missing)}, unknown: {_listed(extra)}"
        )
    free: dict[str, tuple[int, str]] = {}
    for spec in specs:
        _check_feed(spec, feeds[spec.name], free, graph)


def _check_feed(spec: TensorSpec, array: Any, free: dict[str, tuple[int, str]], graph: str) -> None:
    where = f"{graph}: input {spec.name}"
    if not isinstance(array, np.ndarray):
        raise SessionError(f"{where}: got {type(array).__name__}, expected an array {spec.kind}")
    got = f"{array.dtype} {array.shape}"
    if array.dtype != np.dtype(spec.dtype) or array.ndim != len(spec.shape):
        raise SessionError(f"{where}: got {got}, expected {spec.kind}; convert it before the call")
    for size, want in zip(array.shape, spec.shape, strict=True):
        expected, source = (want, "") if isinstance(want, int) else free.get(want, (size, ""))
        if size < 1 or size != expected:
            agree = f" with {want} = {expected} as in {source}" if source else ""
            raise SessionError(f"{where}: got {got}, expected {spec.kind}{agree}; pass that shape")
        if isinstance(want, str):
            free.setdefault(want, (size, spec.name))


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"
