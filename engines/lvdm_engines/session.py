"""The seam between models and the code that runs them: what an open engine is, and its feeds."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import BundleError, SessionError, no_thread
from lvdm_engines.manifest import TensorSpec


class Session(Protocol):
    """One open graph. Runs may come from several threads; the GIL is released while running."""

    @property
    def backend(self) -> str:
        """The name of the backend that runs it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `run` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `run` gives."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs; the arrays belong to the caller and are never written again.

        Raises SessionError for wrong feeds or a failed run, DeviceMemoryError when out of memory.
        """

    def close(self) -> None:
        """Free the engine; closing twice is fine, running afterwards is a SessionError."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@runtime_checkable
class Cancellable(Protocol):
    """A session whose runs can be ended from outside; what takes milliseconds need not be one."""

    def cancel(self, thread: int) -> None:
        """Let the run that the thread with this number is in, if any, end with SessionError."""


@runtime_checkable
class Anticipating(Protocol):
    """A session that can get ready for the runs that its graph had last time."""

    def read_ahead(self) -> None:
        """Begin to, in the background; runs in the meantime wait for nothing but their own."""


def check_threads(count: int) -> None:
    """Raise SessionError unless so many threads can be started.

    Native libraries start theirs where no error can be handled: some end the process, some hang.
    """
    end, started = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(count):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as err:
        raise no_thread(err) from err
    finally:
        end.set()
        for thread in started:
            thread.join()


def check_feeds(
    specs: Sequence[TensorSpec], feeds: Mapping[str, Any], graph: str = "graph"
) -> None:
    """Check names, dtypes and shapes; a free dimension must agree wherever its name stands.

    Raises SessionError that names the tensor, what was received and what was expected.
    """
    names = [spec.name for spec in specs]
    missing = [name for name in names if name not in feeds]
    extra = [name for name in feeds if name not in names]
    if missing or extra:
        raise SessionError(
            f"{graph}: got inputs {_listed(feeds)}, expected {_listed(names)}; "
            f"missing: {_listed(missing)}, unknown: {_listed(extra)}"
        )
    free: dict[str, tuple[int, str]] = {}
    for spec in specs:
        _check_feed(spec, feeds[spec.name], free, graph)


def sizes_of(specs: Iterable[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the sizes of the free dimensions, by name, of tensors with these shapes."""
    return {
        dim: size
        for spec in specs
        for dim, size in zip(spec.shape, shapes[spec.name], strict=True)
        if isinstance(dim, str)
    }


def check_outputs(
    specs: Sequence[TensorSpec], outputs: Mapping[str, Any], sizes: Mapping[str, int], graph: str
) -> None:
    """Check what a session gave against what its graph declares, free dimensions by `sizes`.

    Raises BundleError that names the tensor: an engine that gives other shapes would broadcast, or
    lose frames, in silence.
    """
    for spec in specs:
        shape = tuple(sizes.get(n, n) if isinstance(n, str) else n for n in spec.shape)
        array = outputs.get(spec.name)
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "nothing"
        if got != f"{spec.dtype} {shape}":
            raise BundleError(
                f"{graph}: output {spec.name}: got {got}, expected {spec.dtype} {shape}; the graph "
                "is not what the manifest declares, export the bundle again"
            )


def _check_feed(spec: TensorSpec, array: Any, free: dict[str, tuple[int, str]], graph: str) -> None:
    where = f"{graph}: input {spec.name}"
    if not isinstance(array, np.ndarray):
        raise SessionError(f"{where}: got {type(array).__name__}, expected an array {spec.kind}")
    got = f"{array.dtype} {array.shape}"
    if array.dtype != np.dtype(spec.dtype) or array.ndim != len(spec.shape):
        raise SessionError(f"{where}: got {got}, expected {spec.kind}; convert it before the call")
    for size, want in zip(array.shape, spec.shape, strict=True):
        expected, source = (want, "") if isinstance(want, int) else free.get(want, (size, ""))
        if size < 1 or size != expected:
            agree = f" with {want} = {expected} as in {source}" if source else ""
            raise SessionError(f"{where}: got {got}, expected {spec.kind}{agree}; pass that shape")
        if isinstance(want, str):
            free.setdefault(want, (size, spec.name))


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"
