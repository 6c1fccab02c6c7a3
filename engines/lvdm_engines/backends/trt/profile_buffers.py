"""The buffers of one optimisation profile, and the contexts that work on them."""

import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.gpu.cuda_device import CudaMemory
from lvdm_engines.backends.gpu.uploads import unchanged
from lvdm_engines.backends.trt.context import Context, OpenEngine, Shapes
from lvdm_engines.backends.trt.profiles import shape_at
from lvdm_engines.errors import LvdmError, SessionError
from lvdm_engines.manifest import TensorSpec

_CONTEXTS = 8  # shapes whose contexts and recorded work are kept


@dataclass
class Binding:
    """The buffers of one tensor, of its largest size, and the shape that it was fed last."""

    spec: TensorSpec
    device: CudaMemory
    host: CudaMemory
    fed: tuple[int, ...] | None = None

    def view(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the host buffer as an array of this shape."""
        dtype = np.dtype(self.spec.dtype)
        count = int(np.prod(shape, dtype=np.int64))
        view: NDArray[Any] = self.host.array[: count * dtype.itemsize].view(dtype).reshape(shape)
        return view


class ProfileBuffers:
    """Buffers, allocated once at the profile's maximum, and a context for each recent shape.

    Recorded work refers to the inside of its context, so that a context which records keeps to one
    shape; contexts are small, since their activations lie in the shared scratch.
    """

    def __init__(self, opened: OpenEngine, profile: int) -> None:
        self._o = opened
        self._profile = profile
        self._bindings: dict[str, Binding] = {}
        self._contexts: OrderedDict[Shapes | None, Context] = OrderedDict()
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        opened = self._o
        profile = opened.profiles[self._profile] if opened.profiles else {}
        most = tuple(shape_at(spec, profile, "max") for spec in opened.inputs)
        context = self._context(most)
        shapes = dict(zip((s.name for s in opened.inputs), most, strict=True))
        shapes.update(context.take(most))
        for spec in (*opened.inputs, *opened.outputs):
            binding = self._bindings[spec.name] = self._allocate(spec, shapes[spec.name])
            context.bind(spec.name, binding.device.address)

    def _allocate(self, spec: TensorSpec, shape: tuple[int, ...]) -> Binding:
        nbytes = max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize)
        memory = self._o.device.allocate(nbytes, self._o.stream)
        try:
            return Binding(spec, memory, self._o.device.pin(nbytes))
        except LvdmError:
            memory.close()
            raise

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Copy feeds in, compute, copy outputs into new arrays."""
        opened = self._o
        shapes = tuple(feeds[spec.name].shape for spec in opened.inputs)
        context = self._context(shapes)
        outputs = context.take(shapes)
        for spec in opened.inputs:
            self._feed(self._bindings[spec.name], feeds[spec.name])
        context.enqueue()
        return self._fetch(outputs)

    def device_seconds(self, feeds: Mapping[str, NDArray[Any]], times: int) -> float:
        """Return the time of one run on the device alone; the feeds must have been run before."""
        shapes = tuple(feeds[spec.name].shape for spec in self._o.inputs)
        context = self._context(shapes)
        context.take(shapes)
        started = time.perf_counter()
        for _ in range(times):
            context.enqueue()
        self._o.stream.sync()
        return (time.perf_counter() - started) / times

    def copy_seconds(
        self, feeds: Mapping[str, NDArray[Any]], changing: Collection[str], times: int
    ) -> float:
        """Return the time to move the `changing` inputs in and the outputs out, once each."""
        shapes = tuple(feeds[spec.name].shape for spec in self._o.inputs)
        outputs = self._context(shapes).take(shapes)
        started = time.perf_counter()
        for _ in range(times):
            for name in changing:
                self._bindings[name].fed = None
                self._feed(self._bindings[name], feeds[name])
            self._fetch(outputs)
        return (time.perf_counter() - started) / times

    def forget(self) -> None:
        """Trust nothing on the device after a failed run: feed and record everything anew."""
        for binding in self._bindings.values():
            binding.fed = None
        for context in self._contexts.values():
            context.forget()

    def close(self) -> None:
        """Free buffers and contexts once nothing uses them; each, whatever befalls the others."""
        with ExitStack() as releases:
            for binding in self._bindings.values():
                releases.callback(binding.host.close)
                releases.callback(binding.device.close)
            for context in self._contexts.values():
                releases.callback(context.close)
            self._bindings, self._contexts = {}, OrderedDict()
            with suppress(SessionError):  # after a fault there is nothing left to wait for
                self._o.stream.sync()

    def _fetch(self, outputs: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        """Return outputs of these shapes as new arrays."""
        views = {name: self._bindings[name].view(shape) for name, shape in outputs.items()}
        for name, view in views.items():
            binding = self._bindings[name]
            self._o.stream.download(binding.device, binding.host, view.nbytes)
        self._o.stream.sync()
        return {name: view.copy() for name, view in views.items()}

    def _context(self, shapes: Shapes) -> Context:
        key = shapes if self._o.record else None
        context = self._contexts.get(key)
        if context is None:
            addresses = {name: b.device.address for name, b in self._bindings.items()}
            context = self._contexts[key] = Context(self._o, self._profile, addresses)
        self._contexts.move_to_end(key)
        while len(self._contexts) > _CONTEXTS:
            self._contexts.popitem(last=False)[1].close()
        return context

    def _feed(self, binding: Binding, array: NDArray[Any]) -> None:
        """Upload a feed, unless it is still there from the last run."""
        view = binding.view(array.shape)
        if unchanged(view if binding.fed == array.shape else None, array):
            return
        binding.fed = None
        view[...] = array
        self._o.stream.upload(binding.host, binding.device, view.nbytes)
        binding.fed = array.shape
