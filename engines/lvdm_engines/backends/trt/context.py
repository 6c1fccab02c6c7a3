"""One execution context: shapes, addresses, activation memory, and recorded work."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lvdm_engines.backends.gpu.cuda_device import CudaDevice, CudaRecording, CudaStream
from lvdm_engines.backends.gpu.scratch import SharedScratch
from lvdm_engines.backends.plan_facts import Profile
from lvdm_engines.backends.trt.library import TrtLibrary
from lvdm_engines.errors import DeviceMemoryError, LvdmError, SessionError
from lvdm_engines.manifest import TensorSpec

_log = logging.getLogger(__name__)

Shapes = tuple[tuple[int, ...], ...]  # of the inputs, in order


@dataclass(frozen=True)
class OpenEngine:
    """An engine on a GPU, and what its contexts share.

    `record`: whether we capture CUDA graphs ourselves; TensorRT-RTX does so on its own ·
    `owners`: what must outlive the engine, such as its runtime.
    """

    name: str
    library: TrtLibrary
    engine: Any
    new_context: Callable[[], Any]
    device: CudaDevice
    stream: CudaStream
    scratch: SharedScratch
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    record: bool = True
    owners: tuple[Any, ...] = ()

    def failure(self, doing: str) -> LvdmError:
        """Return what the library reported as an error of one line."""
        return self.library.failure(f"{self.name}: cannot {doing}", SessionError)


class Context:
    """A context that runs in the activation memory it is lent for each run."""

    def __init__(self, opened: OpenEngine, profile: int, addresses: Mapping[str, int]) -> None:
        self._o = opened
        self._context = opened.new_context()
        if self._context is None:
            raise opened.failure("create an execution context")
        self._activations = int(opened.engine.get_device_memory_size_for_profile_v2(profile))
        self._address: int | None = None
        self._shapes: Shapes | None = None
        self._ran: Shapes | None = None
        self._recording: CudaRecording | None = None
        self._may_record = opened.record
        if not self._context.set_optimization_profile_async(profile, opened.stream.handle):
            raise opened.failure(f"choose profile {profile}")
        opened.stream.sync()
        for name, address in addresses.items():
            self.bind(name, address)

    def bind(self, name: str, address: int) -> None:
        """Say where a tensor lies."""
        if not self._context.set_tensor_address(name, address):
            raise self._o.failure(f"bind {name}")

    def take(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """Set the shapes of the inputs and return those of the outputs."""
        if shapes != self._shapes:
            self._shapes = None
            for spec, shape in zip(self._o.inputs, shapes, strict=True):
                if not self._context.set_input_shape(spec.name, shape):
                    raise self._o.failure(f"take {spec.name} of shape {shape}")
            try:
                missing = self._context.infer_shapes()
            except RuntimeError as err:  # the bindings raise where shapes contradict each other
                raise self._o.failure("infer shapes") from err
            if missing:
                raise self._o.failure(f"infer shapes without {', '.join(missing)}")
            self._shapes = shapes
        return {s.name: tuple(self._context.get_tensor_shape(s.name)) for s in self._o.outputs}

    def enqueue(self) -> None:
        """Put one run on the stream: plainly at first, recorded when the shapes come again.

        The library must have run a shape once before its work can be recorded.
        """
        with self._o.scratch.turn(self._o.stream, self._activations) as address:
            if address != self._address:  # recorded work would use the old place
                self.forget()
                self._context.set_device_memory(address, self._activations)
                self._address = address
            if self._ran != self._shapes:
                self.forget()
            elif self._may_record and self._recording is None:
                self._record()
            if self._recording is not None:
                self._recording.launch()
            else:
                self._execute(self._o.stream.handle)
            self._ran = self._shapes

    def forget(self) -> None:
        """Drop recorded work."""
        self._ran = None
        if self._recording is not None:
            self._recording.close()
            self._recording = None

    def close(self) -> None:
        """Free the context."""
        self.forget()
        self._context = None

    def _record(self) -> None:
        try:
            self._recording = self._o.stream.record(self._execute)
        except DeviceMemoryError:
            raise
        except SessionError as err:
            _log.warning("%s runs without CUDA graphs: %s", self._o.name, err)
            self._may_record = False

    def _execute(self, handle: int) -> None:
        if not self._context.execute_async_v3(handle):
            raise self._o.failure("run")
