"""ONNX Runtime on the CPU: the backend `cpu`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from numpy.typing import NDArray

from lvdm_engines.backends.backend import Backend, Opener, SessionOptions
from lvdm_engines.backends.ort.native import (
    Calls,
    check_graph,
    import_problem,
    load,
    native_errors,
    open_native,
    session_error,
)
from lvdm_engines.bundle import GraphSource
from lvdm_engines.errors import BackendError, SessionError
from lvdm_engines.session import check_feeds


class OrtSession:
    """An open graph in ONNX Runtime."""

    backend = "cpu"

    def __init__(self, source: GraphSource, native: Any) -> None:
        self.name = source.name
        self.inputs = source.facts.inputs
        self.outputs = source.facts.outputs
        self._native = native
        self._calls = Calls()
        self.cancel = self._calls.cancel

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session.run`; ONNX Runtime allocates the outputs anew at each call."""
        native = self._native
        if native is None:
            raise SessionError(f"{self.name}: the session is closed; open it again")
        check_feeds(self.inputs, feeds, self.name)
        names = [spec.name for spec in self.outputs]
        try:
            with self._calls.options() as options:
                arrays = native.run(names, dict(feeds), options)
        except native_errors() as err:
            raise session_error(self.name, "run", err) from err
        return dict(zip(names, arrays, strict=True))

    def close(self) -> None:
        """Let go of the engine; a run in another thread still ends normally."""
        self._native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(source: GraphSource, options: SessionOptions) -> OrtSession:
    native = open_native(source, load(), options, "CPUExecutionProvider")
    check_graph(source, native)
    return OrtSession(source, native)


def _opener(source: GraphSource, options: SessionOptions) -> Opener:
    if options.precision == "bf16":
        raise BackendError(
            "got precision bf16, but ONNX Runtime computes in f32 on a CPU; leave it out, or "
            "take the backend openvino"
        )
    return partial(_open, source, options)


CPU = Backend(import_problem, _opener)
