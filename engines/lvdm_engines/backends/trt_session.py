"""A plan of TensorRT or TensorRT-RTX, open on a GPU."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lvdm_engines.backends.lane import Lane
from lvdm_engines.backends.profiles import BATCH, choose, sizes_of
from lvdm_engines.errors import DeviceMemoryError, LvdmError, SessionError
from lvdm_engines.session import check_feeds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from lvdm_engines.backends.context import Opened


class TrtSession:
    """See `Session`. Runs of one session take turns; every profile has buffers of its own.

    A batch above the largest profile runs in parts, since rows are independent.
    """

    def __init__(
        self, opened: Opened, rebuild: str, before_close: Callable[[], None] | None = None
    ) -> None:
        self.name = opened.name
        self.inputs = opened.inputs
        self.outputs = opened.outputs
        self.profiles = opened.profiles
        self._opened: Opened | None = opened
        self._rebuild = rebuild
        self._before_close = before_close
        self._lanes: dict[int, Lane] = {}
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session.run`; the outputs are copies out of buffers that are used again."""
        check_feeds(self.inputs, feeds, self.name)
        with self._lock:
            if self._opened is None:
                raise SessionError(f"{self.name}: the session is closed; open it again")
            self._opened.device.activate()
            return self._run_parts(self._opened, feeds)

    def _run_parts(
        self, opened: Opened, feeds: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        sizes = sizes_of(self.inputs, {name: array.shape for name, array in feeds.items()})
        most = self._most_rows(opened, sizes)
        rows = sizes.get(BATCH, 1)
        if rows <= most:
            return self._run_whole(opened, feeds, sizes)
        parts = -(-rows // most)  # equal ones: fewer shapes, and none below a profile's minimum
        cuts = [rows * part // parts for part in range(1, parts)]
        pieces = {s.name: self._split(s.shape, feeds[s.name], cuts) for s in self.inputs}
        done = []
        for part in range(parts):
            piece = {name: split[part] for name, split in pieces.items()}
            shapes = {name: array.shape for name, array in piece.items()}
            done.append(self._run_whole(opened, piece, sizes_of(self.inputs, shapes)))
        return {spec.name: np.concatenate([d[spec.name] for d in done]) for spec in self.outputs}

    @staticmethod
    def _split(
        shape: tuple[int | str, ...], array: NDArray[Any], cuts: list[int]
    ) -> list[NDArray[Any]]:
        if shape and shape[0] == BATCH:
            return np.split(array, cuts)
        return [array] * (len(cuts) + 1)

    def _most_rows(self, opened: Opened, sizes: Mapping[str, int]) -> int:
        """Return the largest batch that any profile takes with these other sizes."""
        others = {dim: size for dim, size in sizes.items() if dim != BATCH}
        fitting = [p for p in opened.profiles if all(n in p[d] for d, n in others.items())]
        return max((p[BATCH].max for p in fitting if BATCH in p), default=sizes.get(BATCH, 1))

    def _run_whole(
        self, opened: Opened, feeds: Mapping[str, NDArray[Any]], sizes: Mapping[str, int]
    ) -> dict[str, NDArray[Any]]:
        index = choose(opened.profiles, sizes) if opened.profiles else 0
        if index is None:
            got = ", ".join(f"{dim} = {size}" for dim, size in sizes.items())
            allowed = "; ".join(
                ", ".join(f"{dim} = {size}" for dim, size in profile.items())
                for profile in opened.profiles
            )
            raise SessionError(
                f"{self.name}: got {got}, expected one of the plan's profiles ({allowed}); "
                f"build again with another --batch: {self._rebuild}"
            )
        try:
            lane = self._lanes.get(index)
            if lane is None:
                lane = self._lanes[index] = Lane(opened, index)
            return lane.run(feeds)
        except DeviceMemoryError:
            self._free()  # whatever the caller tries next will need room
            raise
        except LvdmError:
            if index in self._lanes:
                self._lanes[index].forget()
            raise

    def _free(self) -> None:
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    def device_seconds(self, feeds: Mapping[str, NDArray[Any]], times: int) -> float:
        """Return how long one run takes on the device alone, without copies and the host's part.

        The batch must fit one profile. Raises SessionError.
        """
        self.run(feeds)
        self.run(feeds)  # recorded by now, where work is recorded
        with self._lock:
            if self._opened is None:
                raise SessionError(f"{self.name}: the session is closed; open it again")
            self._opened.device.activate()
            sizes = sizes_of(self.inputs, {name: array.shape for name, array in feeds.items()})
            index = choose(self._opened.profiles, sizes) if self._opened.profiles else 0
            if index not in self._lanes:
                raise SessionError(f"{self.name}: a batch of {sizes.get(BATCH)} runs in parts")
            return self._lanes[index].device_seconds(feeds, times)

    def close(self) -> None:
        """See `Session.close`; a run in another thread ends first."""
        with self._lock:
            if self._opened is None:
                return
            self._opened.device.activate()
            if self._before_close is not None:
                self._before_close()
            self._free()
            self._opened.stream.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
