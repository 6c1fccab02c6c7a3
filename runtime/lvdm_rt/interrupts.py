"""Signals held back for the moment in which something is opened but nobody owns it yet."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM only when the block is left.

    Handlers run between any two instructions, so also between the call that opens a file and the
    assignment that keeps it. Only the main thread handles signals; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        waiting.append(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # None: installed by C code, which Python could not put back
    mine = [number for number, handler in before.items() if handler is not None]
    for number in mine:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])
        for received in waiting[:1]:
            signal.raise_signal(received)
