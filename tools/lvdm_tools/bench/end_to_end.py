"""Frames per second of the whole pipeline, and how much of it is not the device's work."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import SessionOptions, Timed
from lvdm_engines.bundle import Bundle
from lvdm_engines.opening import open_sessions
from lvdm_engines.session import Session
from lvdm_rt import GenerateOptions, Pipeline

_STEPS = 10  # of DDIM per clip; the share of the host does not depend on their number
_BATCH = 8
_LAUNCHES = 5  # per timing of the device alone

Shapes = tuple[tuple[str, tuple[int, ...], str], ...]  # name, shape and dtype of each feed


class Busy:
    """Adds up the time during which at least one session runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._since = 0.0
        self.seconds = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if self._running == 0:
                self._since = time.perf_counter()
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if self._running == 0:
                self.seconds += time.perf_counter() - self._since


class Watched:
    """A session whose runs are timed, and counted by the shapes of their feeds."""

    def __init__(self, session: Session, busy: Busy) -> None:
        self._session, self._busy = session, busy
        self._lock = threading.Lock()
        self._runs: Counter[Shapes] = Counter()
        self.backend, self.close = session.backend, session.close
        self.inputs, self.outputs = session.inputs, session.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session`."""
        shapes = tuple((name, a.shape, a.dtype.str) for name, a in feeds.items())
        with self._lock:
            self._runs[shapes] += 1
        with self._busy:
            return self._session.run(feeds)

    def restart(self) -> None:
        """Count anew."""
        self._runs.clear()

    def device_seconds(self) -> float | None:
        """Return how long the device takes for all runs counted, or None if it cannot tell.

        Each kind of run is timed again on its own: work of one device adds up, since sessions take
        turns on it. Values of the feeds play no part.
        """
        if not isinstance(self._session, Timed):
            return None
        total = 0.0
        for shapes, count in self._runs.items():
            feeds = {name: np.zeros(shape, dtype) for name, shape, dtype in shapes}
            total += count * self._session.device_seconds(feeds, _LAUNCHES)
        return total

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end_to_end(
    bundle: Bundle, backend: str, frames: int, session_options: SessionOptions | None = None
) -> dict[str, float]:
    """Generate a video twice and time the second; returns speed and what the device had of it."""
    graphs = [name for name in bundle.manifest.graphs if name != "text_encoder"]
    sessions = open_sessions(bundle, graphs, backend, session_options)
    options = GenerateOptions(frames=frames, sampler="ddim", steps=_STEPS, batch_size=_BATCH)
    busy = Busy()
    watched = {name: Watched(session, busy) for name, session in sessions.items()}
    with ExitStack() as stack:
        for session in watched.values():
            stack.enter_context(session)
        pipeline = stack.enter_context(Pipeline(bundle.manifest, watched))
        _generate(pipeline, options)  # kernels, buffers and recordings are made here
        busy.seconds = 0.0
        for session in watched.values():
            session.restart()
        started = time.perf_counter()
        made = _generate(pipeline, options)
        taken = time.perf_counter() - started
        alone = [session.device_seconds() for session in watched.values()]
    known = [seconds for seconds in alone if seconds is not None]
    device = {"device_seconds": sum(known)} if len(known) == len(alone) else {}
    return {
        **device,
        "frames": made,
        "steps": _STEPS,
        "batch_size": _BATCH,
        "seconds": taken,
        "frames_per_second": made / taken,
        "outside_sessions": max(0.0, 1 - busy.seconds / taken),
    }


def _generate(pipeline: Pipeline, options: GenerateOptions) -> int:
    return sum(len(frames) for frames in pipeline.stream(options))
