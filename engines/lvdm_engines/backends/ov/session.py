"""OpenVINO on the CPU: the backend `openvino`, one compiled form for each recent set of shapes."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import Backend, Opener, SessionOptions
from lvdm_engines.backends.ov.compile import Compiler, check_graph, read_model
from lvdm_engines.backends.ov.library import native_errors, session_error, unusable
from lvdm_engines.backends.ov.precision import choose_precision
from lvdm_engines.bundle import GraphSource
from lvdm_engines.errors import DeviceMemoryError, SessionError
from lvdm_engines.session import check_feeds

_SHAPES = 8  # that stay compiled
_WEIGHTS = 4 << 30  # bytes: each of them has weights of its own, in its own order


class OpenvinoSession:
    """See `Session`, `Cancellable` and `Rounding`; runs of several threads take turns."""

    backend = "openvino"

    def __init__(self, source: GraphSource, compiler: Compiler) -> None:
        self.name = source.name
        self.inputs = source.facts.inputs
        self.outputs = source.facts.outputs
        self.precision = compiler.precision
        self._compiler = compiler
        self._most = max(2, min(_SHAPES, _WEIGHTS // max(compiler.source.bytes, 1)))
        self._requests: OrderedDict[tuple[tuple[int, ...], ...], Any] | None = OrderedDict()
        self._running: tuple[int, Any] | None = None
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session.run`; the first run with new shapes compiles for them."""
        check_feeds(self.inputs, feeds, self.name)
        with self._lock:
            requests = self._requests
            if requests is None:
                raise SessionError(f"{self.name}: the session is closed; open it again")
            try:
                request = self._request(requests, feeds)
                self._running = threading.get_ident(), request
                request.start_async(dict(feeds), share_inputs=True)  # on one thread only this can
                request.wait()  # be cancelled; other threads of Python go on meanwhile
                arrays = request.results
                return {spec.name: np.array(arrays[spec.name]) for spec in self.outputs}
            except native_errors() as err:
                told = session_error(self.name, "run", err)
                if isinstance(told, DeviceMemoryError):
                    requests.clear()  # whatever the caller tries next may need the room
                raise told from err
            finally:
                self._running = None

    def cancel(self, thread: int) -> None:
        """See `Cancellable.cancel`; it ends before the next operator, but not while compiling."""
        running = self._running
        if running is not None and running[0] == thread:
            running[1].cancel()

    def close(self) -> None:
        """Let go of the engine; a run in another thread still ends normally."""
        self._requests = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(
        self,
        requests: OrderedDict[tuple[tuple[int, ...], ...], Any],
        feeds: Mapping[str, NDArray[Any]],
    ) -> Any:
        shapes = {spec.name: feeds[spec.name].shape for spec in self.inputs}
        key = tuple(shapes.values())
        if key not in requests:
            while len(requests) >= self._most:
                requests.popitem(last=False)
            requests[key] = self._compiler.request(shapes)
        requests.move_to_end(key)
        return requests[key]


def _opener(source: GraphSource, options: SessionOptions) -> Opener:
    return partial(
        _open, source, Compiler(source, choose_precision(options.precision), options.threads)
    )


def _open(source: GraphSource, compiler: Compiler) -> OpenvinoSession:
    check_graph(source, read_model(source))
    return OpenvinoSession(source, compiler)


OPENVINO = Backend(unusable, _opener)
