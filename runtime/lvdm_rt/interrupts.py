"""Signals held back for the moment in which something is opened but nobody owns it yet."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Run the handlers of SIGINT and SIGTERM only when the block is left, each at most once.

    Handlers run between any two instructions, so also between the call that opens a file and the
    assignment that keeps it. Only the main thread handles signals; elsewhere this does nothing.
    Signals that are ignored or end the process at once stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: dict[int, FrameType | None] = {}
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        waiting[number] = frame

    def deliver() -> None:
        with ExitStack() as handlers:  # each runs, whatever the others raise
            for number, frame in waiting.items():
                handlers.callback(before[number], number, frame)

    with ExitStack() as afterwards:  # the last callback runs first
        afterwards.callback(deliver)
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                afterwards.callback(signal.signal, number, handler)
                signal.signal(number, remember)
        yield
