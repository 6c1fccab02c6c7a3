"""Opening graphs on backends: the only place that chooses one, and where each is imported."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lvdm_engines.backends.backend import BACKENDS, Backend, Opener, SessionOptions
from lvdm_engines.backends.processor import usable_cores
from lvdm_engines.backends.trial import check_worth
from lvdm_engines.bundle import Bundle
from lvdm_engines.errors import BackendError, quoted
from lvdm_engines.session import Anticipating, Session

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """Which backend runs a graph and why, and why those before it in the order do not."""

    backend: str
    refused: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    def __str__(self) -> str:
        """Say each reason once, without what would help: `lvdm-rt doctor` tells that."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.refused.items():
            reasons.setdefault(why.partition(";")[0], []).append(name)
        told = [f"not {', '.join(names)}: {why}" for why, names in reasons.items()]
        told = [self.why, *told] if self.why else told
        return f"{self.backend} ({'; '.join(told)})" if told else self.backend


def open_session(
    bundle: Bundle, graph: str, backend: str = "auto", options: SessionOptions | None = None
) -> Session:
    """Verify a graph of a bundle and open it on a backend.

    `auto` takes the first usable of tensorrt, tensorrt-rtx, cuda, openvino, cpu, and logs which and
    why; of the last two, where both are, the one that a trial finds faster.

    Raises BundleError for a missing, damaged or contradictory graph, BackendError for a backend
    that cannot run it, with the way to fix that.
    """
    choice, open_graph = _choose(bundle, graph, backend, options)
    _log.info("graph %s runs on %s", graph, choice)
    return open_graph()


def open_sessions(
    bundle: Bundle,
    graphs: Sequence[str],
    backend: str = "auto",
    options: SessionOptions | None = None,
) -> dict[str, Session]:
    """Open several graphs; those that are one file with the same tensors share one session.

    Logs which backend runs which of them and why.

    Raises what `open_session` raises, after closing what was open.
    """
    opened: dict[str, Session] = {}
    chosen: dict[str, list[str]] = {}
    try:
        for name in graphs:
            choice, open_graph = _choose(bundle, name, backend, options)
            facts = bundle.graph(name).facts
            twin = next((o for o in opened if bundle.graph(o).facts == facts), None)
            opened[name] = opened[twin] if twin else open_graph()
            chosen.setdefault(str(choice), []).append(name)
        tell_choices(chosen)
        for session in {id(session): session for session in opened.values()}.values():
            if isinstance(session, Anticipating):
                session.read_ahead()
    except BaseException:
        for session in opened.values():
            session.close()
        raise
    return opened


def tell_choices(chosen: Mapping[str, Sequence[str]]) -> None:
    """Log which graphs run on what; `chosen` maps each choice, in words, to its graphs."""
    for told, names in chosen.items():
        graphs = "all graphs" if len(chosen) == 1 else ", ".join(names)
        runs = "runs" if len(chosen) > len(names) == 1 else "run"
        _log.info("%s %s on %s", graphs, runs, told)


def _choose(
    bundle: Bundle, graph: str, backend: str, options: SessionOptions | None
) -> tuple[Choice, Opener]:
    source, asked = bundle.graph(graph), _within_limits(options or SessionOptions())
    candidates: Sequence[str] = BACKENDS if backend == "auto" else [backend]
    refused: dict[str, str] = {}
    for name in candidates:
        found = load_backend(name)
        problem = found.unusable()
        if problem is None:
            try:
                opener = found.opener(source, asked)
                tried = backend == "auto" and name == "openvino"
                why = _compare_with_cpu(bundle, graph, asked, opener) if tried else ""
                return Choice(name, refused, why), opener
            except BackendError as err:
                problem = str(err)
        refused[name] = problem
    if backend == "auto":  # cpu runs every graph, so what it lacks is the shortest way
        raise BackendError(f"{refused['cpu']}; lvdm-rt doctor tells of the other backends")
    reasons = "; ".join(f"{name} is not usable: {why}" for name, why in refused.items())
    raise BackendError(f"graph {graph!r}: {reasons}")


def _within_limits(options: SessionOptions) -> SessionOptions:
    """Keep the engines, which count the machine's cores, to those that this process may use."""
    cores = usable_cores()
    if options.threads is None and cores < (os.cpu_count() or 1):
        return replace(options, threads=cores)
    return options


def _compare_with_cpu(bundle: Bundle, graph: str, options: SessionOptions, opener: Opener) -> str:
    """Return why a graph should not run on the backend cpu, if that could run it at all.

    Raises BackendError where it should.
    """
    cpu = load_backend("cpu")
    if cpu.unusable() is not None:
        return ""
    try:
        other = cpu.opener(bundle.graph(graph), options)
    except BackendError:  # it has not the precision
        return ""
    return check_worth(bundle, graph, options, opener, other)


def backend_report() -> dict[str, str | None]:
    """Return for every backend why this machine cannot run it, or None where it can."""
    return {name: load_backend(name).unusable() for name in BACKENDS}


def load_backend(name: str) -> Backend:
    """Import the module behind one of `BACKENDS`; its engine library is not imported yet.

    Raises BackendError for any other name.
    """
    if name == "cpu":
        from lvdm_engines.backends.ort.cpu import CPU

        return CPU
    if name == "openvino":
        from lvdm_engines.backends.ov.session import OPENVINO

        return OPENVINO
    if name == "cuda":
        from lvdm_engines.backends.ort.cuda import CUDA

        return CUDA
    if name in ("tensorrt", "tensorrt-rtx"):
        from lvdm_engines.backends.trt.opening import TENSORRT, TENSORRT_RTX

        return TENSORRT if name == "tensorrt" else TENSORRT_RTX
    raise BackendError(f"got backend {quoted(name)}, expected auto or one of {', '.join(BACKENDS)}")
