"""Generators that run ahead of their reader in a thread, and streams that anybody may close.

They know no model.
"""

import queue
import threading
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Cancelled(Exception):  # noqa: N818 - not an error: the reader asked for it
    """The reader of a pipeline has gone; unwinds its threads and never leaves them."""


def _worker(stop: threading.Event) -> str:
    """Return the name of the threads that `stop` ends."""
    return f"lvdm-rt ahead {id(stop):x}"


class RunStream(Generic[T]):
    """An iterator over `items` that can be closed from any thread, a callback or a signal handler.

    `stop` is what the workers behind it look at: closing sets it, waits until they have ended,
    within one call of a network, and leaves nothing running. A reader in another thread sees the
    end of the iterator.
    """

    def __init__(self, items: Generator[T, None, None], stop: threading.Event) -> None:
        self._items, self._stop = items, stop
        self._lock = threading.RLock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        with self._lock:
            try:
                return next(self._items)
            except Cancelled:
                raise StopIteration from None

    def close(self) -> None:
        """Stop the work; closing twice is fine."""
        self._stop.set()
        if threading.current_thread().name == _worker(self._stop):
            return  # the reader waits for this very thread: it ends when the callback returns
        with self._lock, suppress(ValueError):  # it is running: a callback of the reader's thread
            self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _End:
    """The last thing in a queue: how the source ended."""

    error: BaseException | None = None


def prefetch(
    source: Generator[T, None, None], ahead: int, stop: threading.Event
) -> Generator[T, None, None]:
    """Yield what `source` yields, computed in a thread at most `ahead` items early.

    An exception of the source is raised here. However this generator ends, the thread is joined
    before: if it ends early, `stop` is set, which the source should look at where it works long.
    """
    items: queue.Queue[T | _End] = queue.Queue(ahead)
    thread = threading.Thread(
        target=_fill, args=(source, items, stop), name=_worker(stop), daemon=True
    )
    ended = _End(Cancelled())
    try:
        thread.start()
        while not isinstance(item := items.get(), _End):
            yield item
        ended = item
    finally:
        if ended.error is not None:
            stop.set()
        while thread.is_alive():
            _drain(items)
            thread.join(0.01)
    if ended.error is not None:
        raise ended.error


def _fill(
    source: Generator[T, None, None], items: "queue.Queue[T | _End]", stop: threading.Event
) -> None:
    error: BaseException | None = None
    try:
        with closing(source):
            for item in source:
                items.put(item)
                if stop.is_set():
                    error = Cancelled()
                    break
    except BaseException as raised:  # noqa: BLE001 - raised again by the reader
        error = raised
    items.put(_End(error))


def _drain(items: "queue.Queue[T | _End]") -> None:
    try:
        while True:
            items.get_nowait()
    except queue.Empty:
        return
