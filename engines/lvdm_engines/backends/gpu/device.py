"""What a session needs of a GPU: memory, ordered copies, and recorded work. A narrow seam.

`cuda_device.py` is the real one; tests bring one made of NumPy arrays.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Memory(Protocol):
    """A block of device memory."""

    @property
    def address(self) -> int:
        """Where it starts, aligned to 256 bytes."""

    @property
    def nbytes(self) -> int:
        """How much of it there is."""

    def close(self) -> None:
        """Free it; work that was ordered before may still use it."""


class HostMemory(Protocol):
    """A block of page-locked host memory, which the GPU copies without the CPU's help."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """The bytes, to read and write."""

    def close(self) -> None:
        """Free it."""


class Recording(Protocol):
    """Work of a stream that was recorded once and can be launched again as a whole."""

    def launch(self) -> None:
        """Put the work on its stream."""

    def close(self) -> None:
        """Forget it."""


class Stream(Protocol):
    """Work in order; everything but `sync` returns at once.

    Every method raises DeviceMemoryError when memory runs out and SessionError for any other fault
    of the device, which may be one of earlier work.
    """

    @property
    def handle(self) -> int:
        """The address that engine libraries take."""

    def upload(self, source: HostMemory, target: Memory, nbytes: int) -> None:
        """Copy the first bytes to the device."""

    def download(self, source: Memory, target: HostMemory, nbytes: int) -> None:
        """Copy the first bytes from the device."""

    def mark(self) -> Any:
        """Return a mark after all work so far."""

    def wait(self, mark: Any) -> None:
        """Start later work only after what another stream has before a mark."""

    def record(self, enqueue: Callable[[int], None]) -> Recording:
        """Record what `enqueue(handle)` puts on the stream, without running it."""

    def sync(self) -> None:
        """Wait until all work is done, with the GIL released."""

    def close(self) -> None:
        """Give the stream back."""


class Device(Protocol):
    """One GPU."""

    def activate(self) -> None:
        """Make it the calling thread's GPU; needed once per thread before anything else."""

    def stream(self) -> Stream:
        """Return a new stream."""

    def allocate(self, nbytes: int, stream: Stream) -> Memory:
        """Return device memory, usable by later work of the stream. Raises DeviceMemoryError."""

    def pin(self, nbytes: int) -> HostMemory:
        """Return page-locked host memory. Raises DeviceMemoryError."""
