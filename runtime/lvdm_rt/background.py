"""Generators that run ahead of their reader, in a thread of their own; they know no model."""

import queue
import threading
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class Cancelled(Exception):  # noqa: N818 - not an error: the reader asked for it
    """The reader of a pipeline has gone; unwinds its threads and never leaves them."""


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
        target=_fill, args=(source, items, stop), name="lvdm-rt ahead", daemon=True
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
