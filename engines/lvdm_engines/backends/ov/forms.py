"""The compiled forms of one graph, and those of the last time read ahead in the background.

A process that makes one video would spend half of its time on reading forms one after the other.
"""

import logging
import threading
import weakref
from collections import OrderedDict, deque
from concurrent.futures import Future
from typing import Any

import msgspec

from lvdm_engines.backends.ov.compile import Compiler, Shapes
from lvdm_engines.backends.ov.library import core, short
from lvdm_engines.backends.processor import usable_cores
from lvdm_engines.backends.user_folders import keep_cached, read_cached

_log = logging.getLogger(__name__)

_MOST = 8  # that stay compiled
_THREADS = 2  # that read ahead, where as many may compute
_AHEAD = 4  # of the last time, in the order in which it needed them
_WEIGHTS = 4 << 30  # bytes: each form has weights of its own, in its own order

_Key = tuple[tuple[int, ...], ...]
_Waiting = deque[tuple[Future[Any], Shapes]]


class Forms:
    """What runs a graph, by the shapes of its inputs; one thread at a time may ask."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._most = max(2, min(_MOST, _WEIGHTS // max(compiler.source.bytes, 1)))
        self._made: OrderedDict[_Key, Any] = OrderedDict()
        self._used: dict[_Key, Shapes] = {}
        self._known: list[Shapes] | None = None  # of the last time, once they were looked up
        self._ahead: dict[_Key, Future[Any]] = {}
        self._threads: list[threading.Thread] = []

    def read_ahead(self) -> None:
        """Begin to read the forms that were used last time, and remember those of this time."""
        if not self._compiler.keeps:
            return
        self._known = _read(self._record)
        waiting: _Waiting = deque((Future(), shapes) for shapes in self._known[: self._most])
        self._ahead = {_key(shapes): form for form, shapes in waiting}
        weakref.finalize(self, waiting.clear)  # should it be dropped without being closed
        core()  # one for all threads
        most = min(_THREADS, self._compiler.threads or usable_cores(), len(waiting))
        for _ in range(most):
            thread = threading.Thread(target=_read_ahead, args=(self._compiler, waiting))
            try:
                thread.start()
            except RuntimeError as err:  # forms are made when they are needed
                _log.info("no thread to read forms ahead: %s", err)
            else:
                self._threads.append(thread)

    def get(self, shapes: Shapes) -> Any:
        """Return what runs the graph with inputs of these shapes; new ones are compiled for.

        Raises what the library does.
        """
        key = _key(shapes)
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        self._used.setdefault(key, shapes)
        ahead = self._ahead.pop(key, None)
        self._make_room()
        form = None if ahead is None or ahead.cancel() else ahead.result()
        if form is None:
            form = self._compiler.request(shapes)
        self._made[key] = form
        return form

    def _make_room(self) -> None:
        """Let go of what nobody asked for, then of what was not used for the longest."""
        while len(self._made) + len(self._ahead) >= self._most:
            if self._ahead:
                self._ahead.pop(next(iter(self._ahead))).cancel()
            else:
                self._made.popitem(last=False)

    def clear(self) -> None:
        """Let go of all forms, and read no more ahead."""
        self._stop_reading()
        self._ahead.clear()
        self._made.clear()

    def close(self) -> None:
        """Read no more ahead, and remember which forms were used if that was begun."""
        self._stop_reading()
        for thread in self._threads:
            thread.join()
        used = list(self._used.values())[:_AHEAD]
        if self._known is not None and used and used != self._known:
            keep_cached(self._record, msgspec.json.encode(used))

    @property
    def _record(self) -> str:
        """The name under which is kept what was used."""
        return f"openvino/{self._compiler.digest({})}"

    def _stop_reading(self) -> None:
        for form in list(self._ahead.values()):
            form.cancel()


def _read_ahead(compiler: Compiler, waiting: _Waiting) -> None:
    """Read what waits, each unless it was cancelled; what cannot be read becomes None."""
    while waiting:
        try:
            form, shapes = waiting.popleft()
        except IndexError:  # another thread was faster
            return
        if form.set_running_or_notify_cancel():
            try:
                found = compiler.kept(shapes)
            except Exception as err:  # noqa: BLE001 - whoever needs it makes it, and hears why not
                _log.info("a form is not read ahead: %s", short(err))
                found = None
            form.set_result(found)


def _key(shapes: Shapes) -> _Key:
    return tuple(shapes.values())


def _read(name: str) -> list[Shapes]:
    data = read_cached(name)
    if data is None:
        return []
    try:
        return list(msgspec.json.decode(data, type=list[dict[str, tuple[int, ...]]]))
    except msgspec.MsgspecError as err:
        _log.info("%s: cannot be read (%s)", name, short(err))
        return []
