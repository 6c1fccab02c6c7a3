"""What is being made right now, for whoever listens; a slow listener misses news, never the worker.

In a route, in the event loop:

    with broadcaster.listen(job_id) as news:
        job = service.get(job_id)           # after listening, so that nothing falls in between
        if job.has_ended: ...               # nothing more will come
        async for item in news:             # ends after the last status, or when the server stops
            match item:
                case Advanced(percent): ...
                case FilmGrew(frames): ...
                case Previewed(stage, pictures): ...
                case StatusChanged(status): ...

From the worker, in any thread: `broadcaster.tell(job_id, item)`, which never waits. Of each kind of
news that waits for a listener only the newest is kept, so that no listener costs memory.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.serve.jobs import ENDED, Status


class Advanced(NamedTuple):
    """How far a video is: percent of all work, sampler steps of clips, and frames."""

    percent: int
    steps: int
    total_steps: int
    frames: int
    total_frames: int


class FilmGrew(NamedTuple):
    """How many frames of a video are there; they lie in its live film."""

    frames: int


class Previewed(NamedTuple):
    """What the latents of a clip seem to become: pictures uint8 (t, h, w, 3)."""

    stage: str
    pictures: NDArray[np.uint8]


class StatusChanged(NamedTuple):
    """The new state of a job."""

    status: Status


News = Advanced | FilmGrew | Previewed | StatusChanged


class Listener:
    """What one reader has not read yet; an asynchronous iterator, used in one event loop."""

    def __init__(self) -> None:
        """Listen from the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._items: dict[type[News], News] = {}  # the newest of each kind, in their order
        self._ended = False
        self._lock = threading.Lock()
        self._ready = asyncio.Event()

    def add(self, item: News) -> None:
        """Let an item be read; from any thread."""
        with self._lock:
            if self._ended:
                return
            self._items.pop(type(item), None)
            self._items[type(item)] = item
            self._ended = isinstance(item, StatusChanged) and item.status in ENDED
        self._wake()

    def end(self) -> None:
        """Let the reader come to the end after what is waiting."""
        with self._lock:
            self._ended = True
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._ready.set)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> News:
        while True:
            self._ready.clear()
            with self._lock:
                if self._items:
                    return self._items.pop(next(iter(self._items)))
                if self._ended:
                    raise StopAsyncIteration
            await self._ready.wait()


class Broadcaster:
    """Listeners by the id of the job that they listen to."""

    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def listen(self, job: str) -> Iterator[Listener]:
        """Give what happens to a job from now on."""
        listener = Listener()
        with self._lock:
            self._listeners[job].add(listener)
            if self._closed:
                listener.end()
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners[job].discard(listener)
                if not self._listeners[job]:
                    del self._listeners[job]

    def tell(self, job: str, item: News) -> None:
        """Tell all who listen to a job; never waits for them."""
        with self._lock:
            listeners = list(self._listeners.get(job, ()))
        for listener in listeners:
            listener.add(item)

    def close(self) -> None:
        """Let every reader come to the end, later ones at once."""
        with self._lock:
            self._closed = True
            listeners = [one for some in self._listeners.values() for one in some]
        for listener in listeners:
            listener.end()
