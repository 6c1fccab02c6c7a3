"""What both backends of ONNX Runtime share: import, settings, checks of a graph, and errors."""

import importlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import GraphSource
from lvdm_engines.errors import DeviceMemoryError, SessionError, quoted
from lvdm_engines.manifest import Dtype, TensorSpec
from lvdm_engines.session import check_threads

_DTYPES: dict[str, Dtype] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_MEMORY = re.compile(
    r"allocate|ALLOC_FAILED|out of memory|bad_alloc|CUDA failure 2\b", re.IGNORECASE
)
_FATAL = 4  # messages of a lower level are not printed
_REINSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'lvdm-rt[{}]'"


def load() -> Any:
    """Import onnxruntime, the only place that does; raises ImportError.

    Its wheel keeps a device id and events for its maker under the home directory and looks for a
    collector, unless this is set before it is imported. Errors, which it raises, are not printed as
    well, in the whole process.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    ort = importlib.import_module("onnxruntime")
    if hasattr(ort, "set_default_logger_severity"):
        ort.set_default_logger_severity(_FATAL)
    return ort


def session_options(ort: Any, options: SessionOptions) -> Any:
    """Return settings for changing shapes: memory patterns would cost memory, spinning CPU time."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads or 0
    settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = False
    settings.log_severity_level = _FATAL  # errors come as exceptions, once
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings


def open_native(source: GraphSource, ort: Any, options: SessionOptions, provider: Any) -> Any:
    """Open a graph's file, once it is what the manifest promises, on one provider."""
    path, settings = str(source.verified()), session_options(ort, options)
    check_threads(options.threads or os.cpu_count() or 1)
    try:
        return ort.InferenceSession(path, settings, [provider])
    except TypeError as err:  # it takes no other names
        raise SessionError(f"the path {quoted(path)} is not UTF-8; move the bundle") from err
    except native_errors() as err:
        raise session_error(source.name, "open", err) from err


class Calls:
    """The runs of one session, so that another thread can end them."""

    def __init__(self) -> None:
        self._running: dict[int, Any] = {}

    @contextmanager
    def options(self) -> Iterator[Any]:
        """Give the options of a run in this thread."""
        thread, options = threading.get_ident(), load().RunOptions()
        options.log_severity_level = _FATAL  # errors come as exceptions, once
        self._running[thread] = options
        try:
            yield options
        finally:
            del self._running[thread]

    def cancel(self, thread: int) -> None:
        """See `Cancellable.cancel`; it ends before the next operator."""
        options = self._running.get(thread)
        if options is not None:
            options.terminate = True


def check_graph(source: GraphSource, native: Any) -> None:
    """Refuse a graph whose real tensors are not the declared ones."""
    try:
        inputs, outputs = _specs(native.get_inputs()), _specs(native.get_outputs())
    except native_errors() as err:  # names that are no text
        raise session_error(source.name, "read", err) from err
    source.check_tensors(inputs, outputs)


def _specs(nodes: Any) -> list[TensorSpec]:
    return [
        TensorSpec(
            node.name,
            _DTYPES.get(node.type, node.type),
            tuple(size if isinstance(size, int) else str(size or "?") for size in node.shape),
        )
        for node in nodes
    ]


@cache
def native_errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises; its exception types have no parent of their own.

    Its buffers raise plain RuntimeError; and where its own text, which repeats what a damaged file
    holds, is no UTF-8, there is UnicodeDecodeError in place of any of them.
    """
    load()
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    return (
        MemoryError,
        RuntimeError,
        UnicodeDecodeError,
        *(kind for kind in kinds if issubclass(kind, Exception)),
    )


def session_error(graph: str, doing: str, err: Exception) -> SessionError:
    """Turn an engine's error into one line."""
    said = err.object.decode(errors="replace") if isinstance(err, UnicodeDecodeError) else str(err)
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", said) or type(err).__name__
    line = text.strip().splitlines()[0].strip()
    if isinstance(err, MemoryError) or _MEMORY.search(text):
        return DeviceMemoryError(f"{graph}: out of memory ({line}); lower the batch size")
    return SessionError(f"{graph}: cannot {doing}: {line}")


def import_problem(extra: str = "cpu") -> str | None:
    """Say why onnxruntime cannot be used and which extra would fix it, or None."""
    try:
        ort = load()
    except ModuleNotFoundError as err:
        if err.name == "onnxruntime":
            return f"no ONNX Runtime is installed; pip install 'lvdm-rt[{extra}]'"
        return f"onnxruntime needs {err.name}, which is not installed; pip install {err.name}"
    except ImportError as err:
        return f"onnxruntime cannot be imported ({err}); {_REINSTALL.format(extra)}"
    if not hasattr(ort, "InferenceSession"):
        # onnxruntime and onnxruntime-gpu share a folder: removing one takes files of the other.
        return f"onnxruntime is incomplete; {_REINSTALL.format(extra)}"
    return None
