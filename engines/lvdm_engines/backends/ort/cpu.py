"""ONNX Runtime: the CPU backend, and CUDA where onnxruntime-gpu is installed."""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from lvdm_engines.backends.backend import Backend, SessionOptions
from lvdm_engines.backends.gpu.driver import driver_problem
from lvdm_engines.backends.trt.library import without_gpu
from lvdm_engines.contract import difference
from lvdm_engines.errors import BundleError, DeviceMemoryError, SessionError
from lvdm_engines.manifest import Dtype, TensorSpec
from lvdm_engines.session import check_feeds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from lvdm_engines.bundle import GraphSource
    from lvdm_engines.session import Session

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


class OrtSession:
    """An open graph in ONNX Runtime."""

    def __init__(self, source: GraphSource, native: Any) -> None:
        self.name = source.name
        self.inputs = source.facts.inputs
        self.outputs = source.facts.outputs
        self._native = native

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session.run`; ONNX Runtime allocates the outputs anew at each call."""
        native = self._native
        if native is None:
            raise SessionError(f"{self.name}: the session is closed; open it again")
        check_feeds(self.inputs, feeds, self.name)
        names = [spec.name for spec in self.outputs]
        try:
            arrays = native.run(names, dict(feeds))
        except native_errors() as err:
            raise explained(self.name, "run", err) from err
        return dict(zip(names, arrays, strict=True))

    def close(self) -> None:
        """Let go of the engine; a run in another thread still ends normally."""
        self._native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open_cpu(source: GraphSource, options: SessionOptions) -> OrtSession:
    path = source.verified()
    ort = importlib.import_module("onnxruntime")
    try:
        native = ort.InferenceSession(
            str(path), session_options(ort, options), ["CPUExecutionProvider"]
        )
    except native_errors() as err:
        raise explained(source.name, "open", err) from err
    check_graph(source, native)
    return OrtSession(source, native)


def _open_cuda(source: GraphSource, options: SessionOptions) -> Session:
    from lvdm_engines.backends.ort.cuda import open_cuda

    return open_cuda(source, importlib.import_module("onnxruntime"), options)


def session_options(ort: Any, options: SessionOptions) -> Any:
    """Settle what was measured: patterns cost memory where shapes vary, spinning costs CPU time."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads or 0
    settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = False
    settings.log_severity_level = 4  # errors come as exceptions, once
    settings.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if options.spinning else "0"
    )
    return settings


def check_graph(source: GraphSource, native: Any) -> None:
    """Refuse a graph whose real tensors are not the declared ones."""
    problem = difference("input", _specs(native.get_inputs()), source.facts.inputs)
    problem = problem or difference("output", _specs(native.get_outputs()), source.facts.outputs)
    if problem:
        raise BundleError(
            f"graph {source.name!r} ({source.facts.file}) is not what the manifest declares: "
            f"{problem}; export the bundle again"
        )


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

    Its buffers raise plain RuntimeError.
    """
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    return (MemoryError, RuntimeError, *(kind for kind in kinds if issubclass(kind, Exception)))


def explained(graph: str, doing: str, err: Exception) -> SessionError:
    """Turn an engine's error into one line."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(err)) or type(err).__name__
    line = text.strip().splitlines()[0].strip()
    if isinstance(err, MemoryError) or _MEMORY.search(text):
        return DeviceMemoryError(f"{graph}: out of memory ({line}); lower the batch size")
    return SessionError(f"{graph}: cannot {doing}: {line}")


def _unusable_cpu() -> str | None:
    try:
        importlib.import_module("onnxruntime")
    except ImportError as err:
        return f"onnxruntime cannot be imported ({err}); pip install onnxruntime"
    return None


def _unusable_cuda() -> str | None:
    problem = _unusable_cpu()
    if problem:
        return problem
    ort = importlib.import_module("onnxruntime")
    lacking = None
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        lacking = (
            "the installed onnxruntime has no CUDA; "
            "pip install 'lvdm-rt[cuda]' && pip uninstall -y onnxruntime && "
            "pip install --force-reinstall --no-deps onnxruntime-gpu"
        )
    problem = driver_problem()
    if problem:
        return without_gpu(problem, lacking)
    if lacking:
        return lacking
    from lvdm_engines.backends.ort.cuda import provider_problem

    return provider_problem(ort)


def _lacks_nothing(source: GraphSource, options: SessionOptions) -> str | None:
    """ONNX Runtime needs nothing beside the graph itself."""
    del source, options
    return None


CPU = Backend(_unusable_cpu, _lacks_nothing, _open_cpu)
CUDA = Backend(_unusable_cuda, _lacks_nothing, _open_cuda)
