"""The compiled forms of one graph, and those of the last time made ahead in the background.

A process that makes one video would spend half of its time on reading forms one after the other.
"""

import logging
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import msgspec

from lvdm_engines.backends.ov.compile import Compiler, Shapes
from lvdm_engines.backends.ov.library import short
from lvdm_engines.backends.user_folders import keep_cached, read_cached

_log = logging.getLogger(__name__)

_MOST = 8  # that stay compiled
_THREADS = 2  # that make forms ahead: one does it on one core
_AHEAD = 4  # of the last time, in the order in which it needed them
_WEIGHTS = 4 << 30  # bytes: each form has weights of its own, in its own order


class Forms:
    """What runs a graph, by the shapes of its inputs; one thread at a time may ask."""

    def __init__(self, compiler: Compiler) -> None:
        """Begin with the forms that were used last time."""
        self._compiler = compiler
        self._most = max(2, min(_MOST, _WEIGHTS // max(compiler.source.bytes, 1)))
        self._name = f"openvino/{compiler.digest({})}"
        self._known = _read(self._name) if compiler.keeps else []
        self._used: list[Shapes] = []
        ahead = [(Future[Any](), shapes) for shapes in self._known[: self._most]]
        self._made = OrderedDict((_key(shapes), form) for form, shapes in ahead)
        self._waiting = deque(ahead)
        self._threads: list[threading.Thread] = []
        for _ in ahead[:_THREADS]:
            thread = threading.Thread(target=self._make_ahead)
            try:
                thread.start()
            except RuntimeError as err:  # forms are made when they are needed
                _log.info("no thread to make forms ahead: %s", err)
            else:
                self._threads.append(thread)

    def get(self, shapes: Shapes) -> Any:
        """Return what runs the graph with inputs of these shapes; new ones are compiled for.

        Raises what the library does.
        """
        key = _key(shapes)
        if shapes not in self._used:
            self._used.append(shapes)
        form = self._made.pop(key, None)
        if form is None or form.cancel():  # or nobody has begun with it
            while len(self._made) >= self._most:
                self._made.popitem(last=False)
            form = Future()
            self._make(form, shapes)
        request = form.result()
        self._made[key] = form
        return request

    def clear(self) -> None:
        """Let go of all forms, and make no more ahead."""
        self._waiting.clear()
        self._made.clear()

    def close(self) -> None:
        """Make no more forms ahead, and remember which were used."""
        self._waiting.clear()
        for thread in self._threads:
            thread.join()
        used = self._used[:_AHEAD]
        if self._compiler.keeps and used and used != self._known:
            keep_cached(self._name, msgspec.json.encode(used))

    def _make_ahead(self) -> None:
        with suppress(IndexError):  # nothing waits any more
            while True:
                self._make(*self._waiting.popleft())

    def _make(self, form: Future[Any], shapes: Shapes) -> None:
        if not form.set_running_or_notify_cancel():
            return
        try:
            form.set_result(self._compiler.request(shapes))
        except BaseException as err:  # noqa: BLE001 - raised where the form is asked for
            form.set_exception(err)


def _key(shapes: Shapes) -> tuple[tuple[int, ...], ...]:
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
