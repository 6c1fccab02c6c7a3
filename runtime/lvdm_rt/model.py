"""A model that is ready to run: what its manifest says, and an open session for each graph.

What sessions answer is checked here, whoever made them.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, Self

from numpy.typing import NDArray

from lvdm_engines.backends.backend import Rounding
from lvdm_engines.errors import PlanError
from lvdm_engines.manifest import Manifest, ModelFacts
from lvdm_engines.session import Cancellable, Session, check_outputs, sizes_of
from lvdm_rt.background import Stop

_log = logging.getLogger(__name__)

OnCall = Callable[[str, float], None]
"""Is told of a network call: its graph, and the seconds that it took."""


class CallTimes:
    """How often each graph was called and for how long; counted from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._totals: dict[str, tuple[int, float]] = {}

    def add(self, graph: str, seconds: float) -> None:
        """Count one call."""
        with self._lock:
            calls, total = self._totals.get(graph, (0, 0.0))
            self._totals[graph] = (calls + 1, total + seconds)

    def tell(self) -> None:
        """Log the totals."""
        with self._lock:
            totals = dict(self._totals)
        for graph, (calls, total) in totals.items():
            each = 1e3 * total / calls
            _log.info("%s: calls %d, together %.2f s, each %.1f ms", graph, calls, total, each)


@dataclass(frozen=True)
class Model:
    """Manifest and sessions by graph name; the sessions belong to whoever opened them."""

    manifest: Manifest
    sessions: Mapping[str, Session]
    stop: Stop = field(default_factory=Stop)
    on_call: OnCall | None = None
    times: CallTimes = field(default_factory=CallTimes)

    def until(self, stop: Stop) -> Self:
        """Return the model for one run, whose calls end when `stop` is set."""
        return replace(self, stop=stop)

    @property
    def facts(self) -> ModelFacts:
        """Sizes, strides and schedule."""
        return self.manifest.model

    def session(self, graph: str) -> Session:
        """Return the session of a graph. Raises PlanError if there is none."""
        if graph not in self.sessions:
            raise PlanError(
                f"{self.manifest.name} has no {graph} graph; export the bundle again with it"
            )
        return self.sessions[graph]

    def run(self, graph: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run a graph and check its answer.

        Raises PlanError, BundleError, SessionError, DeviceMemoryError; and Cancelled once `stop`
        is set.
        """
        session = self.session(graph)
        with self.stop.calling(session.cancel if isinstance(session, Cancellable) else None):
            started = time.perf_counter()
            outputs = session.run(feeds)
        seconds = time.perf_counter() - started
        self.times.add(graph, seconds)
        _log.debug("%s: a call of %.1f ms", graph, 1e3 * seconds)
        if self.on_call is not None:
            self.on_call(graph, seconds)
        sizes = sizes_of(session.inputs, {name: feed.shape for name, feed in feeds.items()})
        check_outputs(session.outputs, outputs, sizes, graph)
        return outputs

    @property
    def backend(self) -> str:
        """The backend of all graphs, or each graph with its own where they differ."""
        names = {graph: session.backend for graph, session in self.sessions.items()}
        different = dict.fromkeys(names.values())
        if len(different) == 1:
            return next(iter(different))
        return ", ".join(f"{graph} on {name}" for graph, name in names.items())

    @property
    def arithmetic(self) -> str:
        """What computes, and in which precision where it has a choice: part of a run."""
        chosen = {
            f"{session.backend} {session.precision}"
            if isinstance(session, Rounding)
            else session.backend
            for session in self.sessions.values()
        }
        return ", ".join(sorted(chosen))
