"""OpenVINO on the CPU: the backend `openvino`, one compiled form for each recent set of shapes."""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import Backend, Opener, SessionOptions
from lvdm_engines.backends.ov.compile import Compiler, check_graph, read_model
from lvdm_engines.backends.ov.forms import Forms
from lvdm_engines.backends.ov.library import native_errors, session_error, unusable
from lvdm_engines.backends.ov.precision import choose_precision
from lvdm_engines.bundle import GraphSource
from lvdm_engines.errors import DeviceMemoryError, SessionError
from lvdm_engines.session import check_feeds


class OpenvinoSession:
    """See `Session`, `Cancellable`, `Anticipating` and `Rounding`; runs take turns."""

    backend = "openvino"

    def __init__(self, source: GraphSource, compiler: Compiler) -> None:
        self.name = source.name
        self.inputs = source.facts.inputs
        self.outputs = source.facts.outputs
        self.precision = compiler.precision
        self._forms: Forms | None = Forms(compiler)
        self._running: tuple[int, Any] | None = None
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session.run`; the first run with new shapes compiles for them."""
        check_feeds(self.inputs, feeds, self.name)
        with self._lock:
            forms = self._forms
            if forms is None:
                raise SessionError(f"{self.name}: the session is closed; open it again")
            try:
                request = forms.get({spec.name: feeds[spec.name].shape for spec in self.inputs})
                self._running = threading.get_ident(), request
                request.start_async(dict(feeds), share_inputs=True)  # on one thread only this can
                request.wait()  # be cancelled; other threads of Python go on meanwhile
                arrays = request.results
                return {spec.name: np.array(arrays[spec.name]) for spec in self.outputs}
            except native_errors() as err:
                told = session_error(self.name, "run", err)
                if isinstance(told, DeviceMemoryError):
                    forms.clear()  # whatever the caller tries next may need the room
                raise told from err
            finally:
                self._running = None

    def cancel(self, thread: int) -> None:
        """See `Cancellable.cancel`; it ends before the next operator, but not while compiling."""
        running = self._running
        if running is not None and running[0] == thread:
            running[1].cancel()

    def read_ahead(self) -> None:
        """See `Anticipating.read_ahead`."""
        with self._lock:
            if self._forms is not None:
                self._forms.read_ahead()

    def close(self) -> None:
        """Let go of the engine; a run in another thread still ends normally."""
        forms, self._forms = self._forms, None
        if forms is not None:
            forms.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opener(source: GraphSource, options: SessionOptions) -> Opener:
    return partial(
        _open, source, Compiler(source, choose_precision(options.precision), options.threads)
    )


def _open(source: GraphSource, compiler: Compiler) -> OpenvinoSession:
    check_graph(source, read_model(source))
    return OpenvinoSession(source, compiler)


OPENVINO = Backend(unusable, _opener)
