"""ONNX Runtime on a GPU: tensors bound to device memory that is kept for each recent shape."""

import io
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import Backend, SessionOptions
from lvdm_engines.backends.gpu.driver import driver_problem, without_gpu
from lvdm_engines.backends.gpu.uploads import unchanged
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
from lvdm_engines.manifest import TensorSpec
from lvdm_engines.session import check_feeds, sizes_of

_log = logging.getLogger(__name__)

_PROVIDER = "CUDAExecutionProvider"
_SHAPES = 8  # whose buffers are kept
# y = Identity(x), float (1,), opset 13: the smallest model that starts a provider
_IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)


@dataclass
class _Bound:
    """Buffers for one set of shapes; `last` holds the feeds that are still in them."""

    binding: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    last: dict[str, NDArray[Any]]


class BoundSession:
    """See `Session` and `Timed`. `place`: the device of the buffers as ONNX Runtime names it."""

    backend = "cuda"

    def __init__(self, source: GraphSource, ort: Any, native: Any, place: tuple[str, int]) -> None:
        self.name = source.name
        self.inputs = source.facts.inputs
        self.outputs = source.facts.outputs
        self._ort, self._native = ort, native
        self._place = place
        self._calls = Calls()
        self.cancel = self._calls.cancel
        self._bound: OrderedDict[tuple[tuple[int, ...], ...], _Bound] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session.run`; outputs are copied from the device into new arrays."""
        check_feeds(self.inputs, feeds, self.name)
        with self._lock:
            if self._native is None:
                raise SessionError(f"{self.name}: the session is closed; open it again")
            try:
                return self._run(feeds)
            except native_errors() as err:
                self._bound.clear()  # whatever the caller tries next may need the room
                raise session_error(self.name, "run", err) from err

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        bound = self._buffers(feeds)
        for name in bound.inputs:
            if not unchanged(bound.last.get(name), feeds[name]):
                self._feed(bound, name, feeds[name])
        with self._calls.options() as options:
            self._native.run_with_iobinding(bound.binding, options)
        return self._fetch(bound)

    @staticmethod
    def _feed(bound: _Bound, name: str, feed: NDArray[Any]) -> None:
        bound.last.pop(name, None)  # an interrupted copy leaves neither the old nor the new
        bound.inputs[name].update_inplace(np.ascontiguousarray(feed))
        bound.last[name] = feed.copy()

    @staticmethod
    def _fetch(bound: _Bound) -> dict[str, NDArray[Any]]:
        # on a GPU `numpy` copies; in host memory it may be the buffer itself
        return {name: np.array(value.numpy()) for name, value in bound.outputs.items()}

    def device_seconds(self, feeds: Mapping[str, NDArray[Any]], times: int) -> float:
        """See `Timed.device_seconds`; the host's launches are included."""
        bound = self._ready(feeds)
        with self._lock:
            started = time.perf_counter()
            for _ in range(times):
                self._native.run_with_iobinding(bound.binding)
            return (time.perf_counter() - started) / times

    def copy_seconds(
        self, feeds: Mapping[str, NDArray[Any]], changing: Collection[str], times: int
    ) -> float:
        """See `Timed.copy_seconds`."""
        bound = self._ready(feeds)
        with self._lock:
            started = time.perf_counter()
            for _ in range(times):
                for name in changing:
                    self._feed(bound, name, feeds[name])
                self._fetch(bound)
            return (time.perf_counter() - started) / times

    def _ready(self, feeds: Mapping[str, NDArray[Any]]) -> _Bound:
        """Return the buffers of feeds that have just been run."""
        self.run(feeds)
        return self._buffers(feeds)

    def _buffers(self, feeds: Mapping[str, NDArray[Any]]) -> _Bound:
        key = tuple(feeds[spec.name].shape for spec in self.inputs)
        if key not in self._bound:
            self._bound[key] = self._bind(feeds)
        self._bound.move_to_end(key)
        while len(self._bound) > _SHAPES:
            self._bound.popitem(last=False)
        return self._bound[key]

    def _bind(self, feeds: Mapping[str, NDArray[Any]]) -> _Bound:
        sizes = sizes_of(self.inputs, {name: array.shape for name, array in feeds.items()})
        binding = self._native.io_binding()
        inputs = {spec.name: self._value(spec, sizes) for spec in self.inputs}
        outputs = {spec.name: self._value(spec, sizes) for spec in self.outputs}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return _Bound(binding, inputs, outputs, {})

    def _value(self, spec: TensorSpec, sizes: Mapping[str, int]) -> Any:
        try:
            shape = [n if isinstance(n, int) else sizes[n] for n in spec.shape]
        except KeyError as err:
            raise SessionError(
                f"{self.name}: the size {err} of {spec} is that of no input; use --backend cpu"
            ) from err
        return self._ort.OrtValue.ortvalue_from_shape_and_type(
            shape, np.dtype(spec.dtype).type, *self._place
        )

    def close(self) -> None:
        """See `Session.close`; a run in another thread ends first."""
        with self._lock:
            self._bound.clear()
            self._native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def provider_problem(ort: Any) -> str | None:
    """Try to start the provider, and say why it cannot run and what would fix it, or None.

    That it is listed says nothing: its library is loaded at its first use, with CUDA and cuDNN, and
    where one is missing ONNX Runtime goes on with the CPU.
    """
    _preload(ort)
    refusals: tuple[type[Exception], ...] = (*native_errors(), ValueError)
    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # told once, here
        native = ort.InferenceSession(_IDENTITY, options, providers=[_PROVIDER])
        why = "its libraries cannot be loaded"
        if native.get_providers()[0] == _PROVIDER:
            return None
    except refusals as err:
        why = (str(err).strip().splitlines() or [type(err).__name__])[0]
    return (
        f"onnxruntime could not start its {_PROVIDER} ({why}); the CUDA and cuDNN that it needs "
        "come with pip install 'lvdm-rt[cuda]'"
    )


def _preload(ort: Any) -> None:
    """Load CUDA and cuDNN out of their wheels, where the loader of the system does not look."""
    load = getattr(ort, "preload_dlls", None)
    if load is None:
        return
    said = io.StringIO()
    with redirect_stdout(said):  # it prints what it misses, and stdout may be a video
        load()
    for line in said.getvalue().splitlines():
        _log.info("onnxruntime: %s", line)


def open_cuda(source: GraphSource, ort: Any, options: SessionOptions) -> BoundSession:
    """Open a graph on a GPU. Raises BackendError where ONNX Runtime would take the CPU instead."""
    provider = (_PROVIDER, {"device_id": options.device, "cudnn_conv_algo_search": "HEURISTIC"})
    native = open_native(source, ort, options, provider)
    if native.get_providers()[0] != _PROVIDER:  # it falls back to the CPU with a mere warning
        raise BackendError(
            f"{source.name}: onnxruntime could not start its {_PROVIDER}; check that its CUDA and "
            "cuDNN libraries are installed, or use --backend cpu"
        )
    check_graph(source, native)
    return BoundSession(source, ort, native, ("cuda", options.device))


def _unusable() -> str | None:
    problem = import_problem("cuda")
    if problem:
        return problem
    ort = load()
    lacking = None
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        lacking = (
            "the installed onnxruntime has no CUDA; "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'lvdm-rt[cuda]'"
        )
    problem = driver_problem()
    if problem:
        return without_gpu(problem, lacking)
    if lacking:
        return lacking
    return provider_problem(ort)


CUDA = Backend(_unusable, lambda source, options: partial(open_cuda, source, load(), options))
