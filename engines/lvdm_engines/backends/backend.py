"""The backends by name, in the order in which `auto` tries them, and what each must offer.

A backend is three functions: may this machine run it, may it open this graph, and open it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lvdm_engines.backends.plan_facts import PlanOptions
    from lvdm_engines.bundle import GraphSource
    from lvdm_engines.session import Session

BACKENDS = ("tensorrt", "tensorrt-rtx", "cuda", "cpu")


@dataclass(frozen=True)
class SessionOptions:
    """How to open a session; what does not concern a backend is ignored by it.

    `threads` for one run on the CPU (None: all cores) · `device`: index of the GPU · `plan`: take
    no plan but one that was built with these options (None: the newest that fits).
    """

    threads: int | None = None
    device: int = 0
    plan: PlanOptions | None = None


@dataclass(frozen=True)
class Backend:
    """What a backend module offers.

    `unusable()` says in one line why this machine cannot run the backend and what would fix it,
    or None. `lacking(source, options)` says the same of one graph, such as a plan that was not
    built for that GPU.
    """

    unusable: Callable[[], str | None]
    lacking: Callable[[GraphSource, SessionOptions], str | None]
    open: Callable[[GraphSource, SessionOptions], Session]
