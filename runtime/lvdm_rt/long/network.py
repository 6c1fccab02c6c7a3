"""Calls of one denoiser: only the inputs it has, batches that fit, results that are numbers."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import DeviceMemoryError, NumericsError
from lvdm_rt.diffusion.noise import Site
from lvdm_rt.diffusion.schedule import Schedule
from lvdm_rt.model import Model

_log = logging.getLogger(__name__)

Array = NDArray[np.float32]
Feeds = Mapping[str, NDArray[np.generic]]

EXACT_ROWS = 2  # a clip and its unconditional twin
_BRANCHES = 3  # rows of a clip with given frames and text, at most


class Network:
    """A denoiser graph that takes any number of rows.

    With `exact` every call has EXACT_ROWS rows, the last ones padding if need be, so that no
    kernel can round differently because of how clips are grouped. Without it all rows go in one
    call; if that does not fit into memory, the batch is halved, for good, until it does.
    """

    def __init__(self, model: Model, graph: str, *, exact: bool) -> None:
        """Call `graph` of a model. Raises PlanError if there is none."""
        self._model, self._graph = model, graph
        self._names = [spec.name for spec in model.session(graph).inputs]
        self._exact = exact
        self._most: int | None = EXACT_ROWS if exact else None  # rows per call

    def __call__(self, feeds: Feeds) -> Array:
        """Run one batch and return `eps`.

        Raises DeviceMemoryError, SessionError.
        """
        feeds = {name: feeds[name] for name in self._names if name in feeds}
        rows = len(feeds["latents"])
        try:
            return self._run(feeds, rows)
        except DeviceMemoryError as err:
            return self._halved(feeds, rows, err)

    def _halved(self, feeds: Feeds, rows: int, err: DeviceMemoryError) -> Array:
        """Run what did not fit in smaller and smaller calls."""
        if self._exact:
            raise _too_small(EXACT_ROWS, err) from err
        most = min(self._most or rows, rows)
        while most > 1:
            most //= 2
            self._most = most
            try:
                eps = self._run(feeds, rows)
            except DeviceMemoryError as smaller:
                err = smaller
                continue
            _log.warning(
                "out of memory; going on with %d rows per network call, which --batch-size %d is "
                "sure not to exceed", most, max(1, most // _BRANCHES),
            )  # fmt: skip
            return eps
        raise _too_small(most, err) from err

    def _run(self, feeds: Feeds, rows: int) -> Array:
        most = self._most or rows
        parts = [self._call(feeds, start, most) for start in range(0, rows, most)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _call(self, feeds: Feeds, start: int, most: int) -> Array:
        part = {name: array[start : start + most] for name, array in feeds.items()}
        rows = len(part["latents"])
        if self._exact and rows < most:
            part = {
                name: np.concatenate([array, np.repeat(array[-1:], most - rows, axis=0)])
                for name, array in part.items()
            }
        out: Array = self._model.run(self._graph, part)["eps"]
        return out[:rows]


def checked(
    eps: Callable[[Array, int], Array], sites: Sequence[Site], steps: int
) -> Callable[[Array, int], Array]:
    """Return `eps` which names the clip and the step if its result is not finite.

    The returned function raises NumericsError.
    """
    step = 0

    def call(x: Array, t: int) -> Array:
        nonlocal step
        step += 1
        out = eps(x, t)
        if not np.isfinite(out).all():
            where = f"step {step} of {steps} (t = {t}), {name_bad(out, sites)}"
            raise NumericsError(
                f"{where}: the network returned NaN or infinity; check the bundle with "
                "lvdm-export verify, or use its fp32 graphs"
            )
        return out

    return call


def estimating(
    eps: Callable[[Array, int], Array], schedule: Schedule, tell: Callable[[Array], None]
) -> Callable[[Array, int], Array]:
    """Return `eps` which tells what the clean latents seem to be: x_0 of x and eps, at each call.

    At the first steps x is nothing but noise, while x_0 shows already where it goes.
    """

    def call(x: Array, t: int) -> Array:
        out = eps(x, t)
        a = float(schedule.alpha_bar[t])
        tell((x - (1 - a) ** 0.5 * out) / a**0.5)
        return out

    return call


def name_bad(rows: Array, sites: Sequence[Site]) -> str:
    """Name the clip of the first row that is not finite."""
    bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    site = sites[int(bad.argmax())]
    return f"{site.stage} clip {site.clip} of video {site.video}"


def _too_small(rows: int, err: DeviceMemoryError) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"out of memory with {rows} rows in a network call ({err}); close other programs, or use a "
        "smaller model or another backend"
    )
