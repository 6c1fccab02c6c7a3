"""Frames per second of the whole pipeline, and how much of it is not the engines' work."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from lvdm_engines.session import open_sessions
from lvdm_rt import GenerateOptions, Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from lvdm_engines.bundle import Bundle
    from lvdm_engines.manifest import TensorSpec
    from lvdm_engines.session import Session

_STEPS = 10  # of DDIM per clip; the share of the host does not depend on their number
_BATCH = 8


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
    """A session whose runs are timed."""

    def __init__(self, session: Session, busy: Busy) -> None:
        self._session, self._busy = session, busy

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See `Session`."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See `Session`."""
        return self._session.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session`."""
        with self._busy:
            return self._session.run(feeds)

    def close(self) -> None:
        """See `Session`."""
        self._session.close()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end_to_end(bundle: Bundle, backend: str, frames: int) -> dict[str, float]:
    """Generate a video twice and time the second; returns speed and the host's share of it."""
    graphs = [name for name in bundle.manifest.graphs if name != "text_encoder"]
    sessions = open_sessions(bundle, graphs, backend)
    busy = Busy()
    try:
        watched = {name: Watched(session, busy) for name, session in sessions.items()}
        options = GenerateOptions(frames=frames, sampler="ddim", steps=_STEPS, batch_size=_BATCH)
        with Pipeline(bundle.manifest, watched) as pipeline:
            _generate(pipeline, options)  # kernels, buffers and recordings are made here
            busy.seconds = 0.0
            started = time.perf_counter()
            made = _generate(pipeline, options)
            taken = time.perf_counter() - started
    finally:
        for session in set(sessions.values()):
            session.close()
    return {
        "frames": made,
        "steps": _STEPS,
        "batch_size": _BATCH,
        "seconds": taken,
        "frames_per_second": made / taken,
        "outside_sessions": max(0.0, 1 - busy.seconds / taken),
    }


def _generate(pipeline: Pipeline, options: GenerateOptions) -> int:
    return sum(len(frames) for frames in pipeline.stream(options))
