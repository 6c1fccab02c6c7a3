"""A GPU through cuda-core: memory, ordered copies, and recorded work. A narrow seam.

Tests bring a GPU that is made of NumPy arrays.
"""

import ctypes
import importlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import BackendError, DeviceMemoryError, SessionError


@contextmanager
def cuda_errors(doing: str) -> Iterator[None]:
    """Turn an error of the CUDA driver into one line."""
    try:
        yield
    except (RuntimeError, _cuda_error()) as err:
        line = " ".join(str(err).split()) or type(err).__name__
        if "OUT_OF_MEMORY" in line or "out of memory" in line:
            raise DeviceMemoryError(
                f"cannot {doing}: out of GPU memory ({line}); lower the batch size"
            ) from err
        raise SessionError(
            f"cannot {doing}: {line}; check nvidia-smi, and open the session again"
        ) from err


def _cuda_error() -> type[Exception]:
    """Return cuda-core's own exception; it is public by what it raises, not by name."""
    module: Any = importlib.import_module("cuda.core._utils.cuda_utils")
    kind: type[Exception] = module.CUDAError
    return kind


@dataclass(frozen=True)
class CudaMemory:
    """A block of device memory, or of page-locked host memory, which the GPU copies by itself.

    It starts at `address`, aligned to 256 bytes.
    """

    buffer: Any
    nbytes: int
    address: int

    @cached_property
    def array(self) -> NDArray[np.uint8]:
        """The bytes, of page-locked host memory only; valid until `close`."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * self.nbytes).from_address(self.address))

    def close(self) -> None:
        """Free it; work of the device that was ordered before may still use it."""
        with cuda_errors("free memory"):
            self.buffer.close()


@dataclass(frozen=True)
class CudaRecording:
    """A CUDA graph: work of a stream that was recorded once and can be launched as a whole."""

    graph: Any
    stream: Any

    def launch(self) -> None:
        """Put the graph on the stream."""
        with cuda_errors("launch a CUDA graph"):
            self.graph.launch(self.stream)

    def close(self) -> None:
        """Destroy the graph."""
        with cuda_errors("destroy a CUDA graph"):
            self.graph.close()


@dataclass(frozen=True)
class CudaStream:
    """Work in order, on a non-blocking stream; everything but `sync` returns at once.

    Every method raises DeviceMemoryError when memory runs out and SessionError for any other fault
    of the device, which may be one of earlier work.
    """

    stream: Any

    @property
    def handle(self) -> int:
        """The address that engine libraries take."""
        return int(self.stream.handle)

    def upload(self, source: CudaMemory, target: CudaMemory, nbytes: int) -> None:
        """Copy the first bytes to the device."""
        with cuda_errors("copy to the GPU"):
            _copy(target.address, source.address, nbytes, self.stream)

    def download(self, source: CudaMemory, target: CudaMemory, nbytes: int) -> None:
        """Copy the first bytes from the device."""
        with cuda_errors("copy from the GPU"):
            _copy(target.address, source.address, nbytes, self.stream)

    def mark(self) -> Any:
        """Return a mark, an event, after all work so far."""
        with cuda_errors("record an event"):
            return self.stream.record()

    def wait(self, mark: Any) -> None:
        """Start later work only after what another stream has before a mark."""
        with cuda_errors("wait for an event"):
            self.stream.wait(mark)

    def record(self, enqueue: Callable[[int], None]) -> CudaRecording:
        """Capture what `enqueue(handle)` puts on the stream, without running it, as a CUDA graph.

        A failed capture leaves the stream usable.
        """
        with cuda_errors("capture a CUDA graph"), closing(self.stream.create_graph_builder()) as b:
            # relaxed: the library may ask the driver for memory facts meanwhile
            b.begin_building(mode="relaxed")
            try:
                enqueue(int(b.stream.handle))
            except BaseException:
                with suppress(RuntimeError, _cuda_error()):  # what went wrong first is told
                    b.end_building()
                raise
            b.end_building()
            return CudaRecording(b.complete(), self.stream)

    def sync(self) -> None:
        """Wait until all work is done, with the GIL released."""
        with cuda_errors("run"):
            self.stream.sync()

    def close(self) -> None:
        """Destroy the stream."""
        with cuda_errors("destroy a stream"):
            self.stream.close()


class CudaDevice:
    """One GPU by its index in the driver's order. Raises BackendError if there is none."""

    def __init__(self, index: int) -> None:
        self._core: Any = importlib.import_module("cuda.core")
        self._index = index
        self._pinned = self._core.LegacyPinnedMemoryResource()
        self.activate()

    def activate(self) -> None:
        """Make it the calling thread's GPU; needed once per thread before anything else."""
        with cuda_errors("use the GPU"):
            try:
                device = self._core.Device(self._index)
            except ValueError as err:
                raise BackendError(f"there is no GPU {self._index}; see nvidia-smi") from err
            device.set_current()

    def stream(self) -> CudaStream:
        """Return a new non-blocking stream."""
        with cuda_errors("create a stream"):
            return CudaStream(self._core.Device(self._index).create_stream())

    def allocate(self, nbytes: int, stream: CudaStream) -> CudaMemory:
        """Return device memory, usable by later work of the stream. Raises DeviceMemoryError."""
        with cuda_errors(f"allocate {nbytes / 2**20:.1f} MiB"):
            buffer = self._core.Device(self._index).allocate(nbytes, stream=stream.stream)
            return CudaMemory(buffer, nbytes, int(buffer.handle))

    def pin(self, nbytes: int) -> CudaMemory:
        """Return page-locked host memory. Raises DeviceMemoryError."""
        with cuda_errors(f"pin {nbytes / 2**20:.1f} MiB of host memory"):
            buffer = self._pinned.allocate(nbytes)
            return CudaMemory(buffer, nbytes, int(buffer.handle))


def _copy(target: int, source: int, nbytes: int, stream: Any) -> None:
    """Copy within unified addresses; cuda-core's own copies take whole buffers only."""
    driver: Any = importlib.import_module("cuda.bindings.driver")
    (code,) = driver.cuMemcpyAsync(target, source, nbytes, int(stream.handle))
    if code != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(code.name)
