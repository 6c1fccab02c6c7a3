"""Whole videos through the pipeline: frames per second, and where the time goes.

Sessions are wrapped, so that nothing of the product takes part in its measurement. Free of torch,
whose memory would be taken for ours.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from lvdm_engines.backends.backend import SessionOptions, Timed
from lvdm_engines.bundle import Bundle
from lvdm_engines.opening import open_sessions
from lvdm_engines.session import Session
from lvdm_rt import GenerateOptions, Pipeline
from lvdm_rt.text.tokenizer import load_tokenizer

_FEW = 2  # steps
_LAUNCHES = 5  # per timing of the device alone

Shapes = tuple[tuple[str, tuple[int, ...], str], ...]  # name, shape and dtype of each feed


class Busy:
    """Adds up how long which kinds of sessions run, and what the program does while none does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Count anew; no session may be running."""
        self._running: Counter[str] = Counter()
        self._since, self._host = time.perf_counter(), _host_seconds()
        self.kinds: defaultdict[tuple[str, ...], float] = defaultdict(float)  # by what ran at once
        self.host = 0.0  # seconds of Python's threads while no session ran

    @property
    def seconds(self) -> float:
        """The time during which at least one session ran."""
        return sum(taken for kinds, taken in self.kinds.items() if kinds)

    @contextmanager
    def run(self, kind: str = "run") -> Iterator[None]:
        """Count a session of this kind as running."""
        self._change(kind, 1)
        try:
            yield
        finally:
            self._change(kind, -1)

    def _change(self, kind: str, by: int) -> None:
        with self._lock:
            before, now = tuple(sorted(+self._running)), time.perf_counter()
            self.kinds[before] += now - self._since
            if not before:
                self.host += min(now - self._since, max(0.0, _host_seconds() - self._host))
            self._running[kind] += by
            self._since = now
            if not +self._running:
                self._host = _host_seconds()

    def shares(self, taken: float) -> dict[str, float]:
        """Divide the wall time of a video: which networks ran, or host work, or waiting."""
        one, other, both = (self.kinds[k] for k in (("denoise",), ("decode",), _BOTH))
        waiting = max(0.0, taken - self.seconds - self.host)
        parts = {"denoise": one, "decode": other, "both": both, "host": self.host}
        return {name: part / taken for name, part in {**parts, "waiting": waiting}.items()}


_BOTH = ("decode", "denoise")


def _host_seconds() -> float:
    """Return the processor time of Python's threads, without those of engine libraries."""
    total = 0.0
    for thread in threading.enumerate():
        with suppress(OSError, TypeError):  # it has just ended, or not quite begun
            # the clock of one thread by its number, as Linux makes it; for one that has ended the
            # C library's function would crash
            total += time.clock_gettime(~thread.native_id << 3 | 6)  # type: ignore[operator]
    return total


class Watched:
    """A session whose runs are timed, and counted by the shapes of their feeds."""

    def __init__(self, session: Session, busy: Busy, kind: str = "run") -> None:
        self._session, self._busy, self._kind = session, busy, kind
        self._lock = threading.Lock()
        self._runs: Counter[Shapes] = Counter()
        self.backend, self.close = session.backend, session.close
        self.inputs, self.outputs = session.inputs, session.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session`."""
        shapes = tuple((name, a.shape, a.dtype.str) for name, a in feeds.items())
        with self._lock:
            self._runs[shapes] += 1
        with self._busy.run(self._kind):
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
    bundle: Bundle,
    backend: str,
    options: GenerateOptions,
    session_options: SessionOptions | None = None,
) -> dict[str, Any]:
    """Generate a video after warming up; returns speed and what took the time."""
    sessions = open_sessions(bundle, list(bundle.manifest.graphs), backend, session_options)
    tokenizer = None if bundle.manifest.model.context is None else load_tokenizer(bundle)
    busy = Busy()
    watched = {
        name: Watched(session, busy, "decode" if name in ("encoder", "decoder") else "denoise")
        for name, session in sessions.items()
    }
    with ExitStack() as stack:
        for session in watched.values():
            stack.enter_context(session)
        pipeline = stack.enter_context(Pipeline(bundle.manifest, watched, tokenizer))
        settings = pipeline.settings(options)
        # the same calls, but fewer: kernels, buffers and recordings are made here
        few = replace(options, preset=None, sampler="ddim", steps=_FEW, eta=None)
        generate(pipeline, options if settings.sampler == "distilled" else few)
        for session in watched.values():
            session.restart()
        busy.restart()
        made = generate(pipeline, options)
        shares = busy.shares(made["seconds"])
        alone = [session.device_seconds() for session in watched.values()]
    known = [seconds for seconds in alone if seconds is not None]
    device = {"device_seconds": sum(known)} if len(known) == len(alone) else {}
    return {
        **device,
        **made,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "frames_per_second": made["frames"] / made["seconds"],
        "outside_sessions": shares["host"] + shares["waiting"],
        "shares": shares,
    }


def generate(pipeline: Pipeline, options: GenerateOptions) -> dict[str, Any]:
    """Make videos; returns how many frames in how many seconds, and when the first were there."""
    options = unprompted(pipeline, options)
    started, first, frames = time.perf_counter(), None, 0
    for chunk in pipeline.stream_videos(options):
        first = time.perf_counter() - started if first is None else first
        frames += len(chunk.frames)
    return {"frames": frames, "seconds": time.perf_counter() - started, "first_seconds": first}


def unprompted(pipeline: Pipeline, options: GenerateOptions) -> GenerateOptions:
    """Ask a model that reads text for nothing in particular."""
    return options if pipeline.manifest.model.context is None else replace(options, prompt="")


def generate_once(
    bundle: Path, backend: str, session_options: SessionOptions, *videos: GenerateOptions
) -> dict[str, Any]:
    """Open a bundle, make videos and tell of the last of them: for a process of its own."""
    with Pipeline.open(bundle, backend, session_options) as pipeline:
        return [generate(pipeline, options) for options in videos][-1]
