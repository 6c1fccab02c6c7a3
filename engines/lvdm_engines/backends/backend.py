"""The backends by name, in the order in which `auto` tries them, and what each offers.

A backend is two functions: may this machine run it, and what opens a graph. Sessions of some can do
more than `Session` asks: those that are `Timed`, `Profiled` or `Rounding`.
`lvdm_engines.opening.load_backend` says which module is behind each name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from lvdm_engines.errors import OptionsError, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lvdm_engines.backends.plan_facts import PlanOptions, Profile
    from lvdm_engines.bundle import GraphSource
    from lvdm_engines.session import Session


Opener = Callable[[], "Session"]

BACKENDS = ("tensorrt", "tensorrt-rtx", "cuda", "openvino", "cpu")

MOST_THREADS = 1024
CpuPrecision = Literal["f32", "bf16"]
CPU_PRECISIONS: tuple[CpuPrecision, ...] = ("f32", "bf16")


@dataclass(frozen=True)
class SessionOptions:
    """How to open a session; what does not concern a backend is ignored by it.

    `threads` for one run on the CPU (None: all cores) · `precision` of products and of what lies
    between operators on the CPU (None: the backend's own choice); on a GPU it is the graph's ·
    `device`: index of the GPU · `plan`: take no plan but one that was built with these options
    (None: the newest that fits).
    """

    threads: int | None = None
    precision: CpuPrecision | None = None
    device: int = 0
    plan: PlanOptions | None = None

    def __post_init__(self) -> None:
        """Raise OptionsError for numbers that no engine takes."""
        if self.threads is not None and not _is_within(self.threads, 1, MOST_THREADS):
            raise OptionsError(
                f"got threads {quoted(self.threads)}, expected 1 to {MOST_THREADS} or None"
            )
        if not _is_within(self.device, 0, MOST_THREADS):
            raise OptionsError(f"got device {quoted(self.device)}, expected the number of a GPU")
        if self.precision not in (None, *CPU_PRECISIONS):
            raise OptionsError(
                f"got precision {quoted(self.precision)}, expected {', '.join(CPU_PRECISIONS)}"
            )


def _is_within(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


@dataclass(frozen=True)
class Backend:
    """What a backend module offers.

    `unusable()` says in one line why this machine cannot run the backend and what would fix it,
    or None. `opener(source, options)` finds what a graph needs to run, and returns what opens it.
    It raises BackendError for what is lacking, such as a plan for that GPU.
    """

    unusable: Callable[[], str | None]
    opener: Callable[[GraphSource, SessionOptions], Opener]

    def open(self, source: GraphSource, options: SessionOptions) -> Session:
        """Open a graph on a machine that can run the backend; raises what `opener` and it raise."""
        return self.opener(source, options)()


@runtime_checkable
class Timed(Protocol):
    """A session on a device that can tell computing from copying."""

    def device_seconds(self, feeds: Mapping[str, NDArray[Any]], times: int) -> float:
        """Return how long one of `times` runs takes on the device, without copies."""

    def copy_seconds(
        self, feeds: Mapping[str, NDArray[Any]], changing: Collection[str], times: int
    ) -> float:
        """Return how long a run spends on moving the `changing` inputs in and the outputs out."""


@runtime_checkable
class Profiled(Protocol):
    """A session of a plan, which was compiled for ranges of sizes."""

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The ranges of sizes that run whole."""


@runtime_checkable
class Rounding(Protocol):
    """A session that may compute in another precision than its graph has."""

    @property
    def precision(self) -> CpuPrecision:
        """What it rounds to."""
