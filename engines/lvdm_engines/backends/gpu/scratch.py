"""One block of device memory that several engines use for their activations, one after another.

The engines of a video take turns, so the largest need is enough for all. A turn is a matter of
streams, not of threads: the next one is enqueued at once and starts when the last has finished.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lvdm_engines.backends.gpu.cuda_device import CudaDevice, CudaMemory, CudaStream

_scratches: "weakref.WeakValueDictionary[int, SharedScratch]" = weakref.WeakValueDictionary()
_scratches_lock = threading.Lock()


class SharedScratch:
    """Activation memory of one GPU, which grows to the largest need that ever took a turn."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._stream = device.stream()
        self._block: CudaMemory | None = None
        self._last: Any = None

    @contextmanager
    def turn(self, stream: CudaStream, nbytes: int) -> Iterator[int]:
        """Give the address of at least `nbytes` to work that is enqueued on `stream` meanwhile.

        The address changes when the block grows. Raises DeviceMemoryError.
        """
        with self._lock:
            if self._last is not None:
                stream.wait(self._last)
            block = self._grown(nbytes)
            try:
                yield block.address
            finally:
                self._last = stream.mark()

    def _grown(self, nbytes: int) -> CudaMemory:
        needed = max(nbytes, 256)
        if self._block is None or self._block.nbytes < needed:
            self.close()  # first: the old and the new block together may not fit
            self._block = self._device.allocate(needed, self._stream)
            self._stream.sync()
        return self._block

    def close(self) -> None:
        """Free the block once nothing uses it; the next turn allocates another."""
        if self._block is not None:
            if self._last is not None:
                self._stream.wait(self._last)
                self._stream.sync()
            self._block.close()
            self._block = None


def shared_scratch(index: int, device: CudaDevice) -> SharedScratch:
    """Return the scratch that all open sessions of GPU `index` share; it goes with the last one."""
    with _scratches_lock:
        scratch = _scratches.get(index)
        if scratch is None:
            scratch = _scratches[index] = SharedScratch(device)
        return scratch
