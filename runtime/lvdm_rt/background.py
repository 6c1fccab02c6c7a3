"""Generators that run ahead of their reader in a thread, and streams that anybody may close.

They know no model; of a call that can be cancelled they know just that.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from lvdm_engines.errors import no_thread

T = TypeVar("T")

_POLL = 0.01  # seconds between two looks at a thread that is to end


class Cancelled(Exception):  # noqa: N818 - not an error: the reader asked for it
    """The reader of a pipeline has gone; unwinds its threads and never leaves them."""


class Stop:
    """Tells the threads of one run that nobody waits any more, also inside a long call.

    Setting it again reaches what has begun since, so whoever waits for the end repeats it.
    """

    def __init__(self) -> None:
        self._set = False
        self._calls: dict[int, Callable[[int], None]] = {}

    def set(self) -> None:
        """Stop what runs; what is called later raises Cancelled."""
        self._set = True
        for thread, cancel in list(self._calls.items()):
            cancel(thread)

    def check(self) -> None:
        """Raise Cancelled if the run should stop."""
        if self._set:
            raise Cancelled

    @contextmanager
    def calling(self, cancel: Callable[[int], None] | None) -> Iterator[None]:
        """Run a call that `cancel`, given the number of its thread, ends early with any error."""
        self.check()
        thread = threading.get_ident()
        if cancel is not None:
            self._calls[thread] = cancel
        try:
            yield
        except Exception:
            self.check()
            raise
        finally:
            self._calls.pop(thread, None)


def _worker(stop: Stop) -> str:
    """Return the name of the threads that `stop` ends."""
    return f"lvdm-rt ahead {id(stop):x}"


class RunStream(Generic[T]):
    """An iterator over `items` that can be closed from any thread, a callback or a signal handler.

    `stop` is what the workers behind it look at: closing sets it, waits until they have ended,
    within one call of a network (ONNX Runtime cancels that too), and leaves nothing running. A
    reader in another thread sees the end of the iterator.
    """

    def __init__(self, items: Generator[T, None, None], stop: Stop) -> None:
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
        """Stop the work; closing twice is fine.

        It waits until a callback has returned, which therefore may close, but not wait for another
        thread that does.
        """
        self._stop.set()
        if threading.current_thread().name == _worker(self._stop):
            return  # the reader waits for this very thread: it ends when the callback returns
        while not self._lock.acquire(timeout=_POLL):
            self._stop.set()
        try:
            with suppress(ValueError):  # it is running: a callback of the reader's thread
                self._items.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _End:
    """The last thing in a queue: how the source ended."""

    error: BaseException | None = None


def prefetch(source: Generator[T, None, None], ahead: int, stop: Stop) -> Generator[T, None, None]:
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
        try:
            thread.start()
        except RuntimeError as err:
            raise no_thread(err) from err
        while not isinstance(item := items.get(), _End):
            yield item
        ended = item
    finally:
        while thread.is_alive():
            if ended.error is not None:
                stop.set()
            _drain(items)
            thread.join(_POLL)
    if ended.error is not None:
        raise ended.error


def _fill(source: Generator[T, None, None], items: "queue.Queue[T | _End]", stop: Stop) -> None:
    error: BaseException | None = None
    try:
        with closing(source):
            for item in source:
                items.put(item)
                stop.check()
    except BaseException as raised:  # noqa: BLE001 - raised again by the reader
        error = raised
    items.put(_End(error))


def _drain(items: "queue.Queue[T | _End]") -> None:
    try:
        while True:
            items.get_nowait()
    except queue.Empty:
        return
