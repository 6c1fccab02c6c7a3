"""What is being made right now, for whoever listens; a slow listener loses, never the worker.

In a route, in the event loop:

    with hub.listen(job_id, frames=True) as news:
        job = service.get(job_id)           # after listening, so that nothing falls in between
        if job.has_ended: ...               # nothing more will come
        async for item in news:             # ends after the last status, or when the server stops
            match item:
                case FramesMade(start, frames): ...    # uint8 (f, h, w, 3), in order, read only
                case Advanced(percent): ...            # only the newest waits
                case StatusChanged(status): ...
        news.lost                           # True if it was detached for reading too slowly

From the worker, in any thread: `hub.tell(job_id, item)`, which never waits. A listener hears what
is made from then on; after a restart of the server a job's frames come from the first one again.
Further kinds of news are tuples that `tell` is given; what is in `nbytes` of their arrays counts.
"""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.serve.jobs import ENDED, Status

MOST_WAITING = 64 << 20  # bytes of pictures that may wait for one listener


class FramesMade(NamedTuple):
    """Consecutive frames (f, h, w, 3) of a video; `start` is the index of the first."""

    start: int
    frames: NDArray[np.uint8]


class Advanced(NamedTuple):
    """How far a video is: percent of all work, sampler steps of clips, and frames."""

    percent: int
    steps: int
    total_steps: int
    frames: int
    total_frames: int


class StatusChanged(NamedTuple):
    """The new state of a job."""

    status: Status


News = FramesMade | Advanced | StatusChanged


class Listener:
    """What one reader has not read yet; an asynchronous iterator, used in one event loop."""

    def __init__(self, *, frames: bool, most_waiting: int = MOST_WAITING) -> None:
        """Listen from the running event loop; pictures come with `frames` only."""
        self.lost = False
        self._frames, self._most = frames, most_waiting
        self._loop = asyncio.get_running_loop()
        self._items: deque[News] = deque()
        self._waiting = 0  # bytes
        self._ended = False
        self._lock = threading.Lock()
        self._ready = asyncio.Event()

    def add(self, item: News) -> None:
        """Let an item be read; from any thread."""
        size = _size(item)
        if size and not self._frames:
            return
        with self._lock:
            if self._ended:
                return
            if isinstance(item, Advanced) and self._items and isinstance(self._items[-1], Advanced):
                self._items.pop()
            self._waiting += size
            if self._waiting > self._most:
                self.lost = self._ended = True
                self._items.clear()
            else:
                self._items.append(item)
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
                    item = self._items.popleft()
                    self._waiting -= _size(item)
                    return item
                if self._ended:
                    raise StopAsyncIteration
            await self._ready.wait()


class Hub:
    """Listeners by the id of the job that they listen to."""

    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def listen(self, job: str, *, frames: bool = False) -> Iterator[Listener]:
        """Give what happens to a job from now on."""
        listener = Listener(frames=frames)
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


def _size(item: News) -> int:
    return sum(part.nbytes for part in item if isinstance(part, np.ndarray))
