"""A plan of TensorRT or TensorRT-RTX, open on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.trt.profile_buffers import Lane
from lvdm_engines.backends.trt.profiles import BATCH, choose
from lvdm_engines.errors import DeviceMemoryError, LvdmError, SessionError
from lvdm_engines.session import check_feeds, sizes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lvdm_engines.backends.plan_facts import Profile
    from lvdm_engines.backends.trt.context import Opened

Feeds = Mapping[str, NDArray[Any]]


class TrtSession:
    """See `Session`, `Timed` and `Profiled`.

    Runs of one session take turns; every profile has buffers of its own. A batch above the largest
    profile runs in parts, and one below the smallest beside rows that are thrown away, since rows
    are independent.
    """

    def __init__(
        self, opened: Opened, rebuild: str, before_close: Callable[[], None] | None = None
    ) -> None:
        self.name = opened.name
        self.backend = opened.library.name
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
            opened = self._usable()
            done = [self._run_padded(opened, part) for part in self._parts(opened, feeds)]
        if len(done) == 1:
            return done[0]
        return {spec.name: np.concatenate([d[spec.name] for d in done]) for spec in self.outputs}

    def device_seconds(self, feeds: Feeds, times: int) -> float:
        """See `Timed.device_seconds`."""
        return self._measured(feeds, lambda lane, part: lane.device_seconds(part, times))

    def copy_seconds(self, feeds: Feeds, changing: Collection[str], times: int) -> float:
        """See `Timed.copy_seconds`."""
        return self._measured(feeds, lambda lane, part: lane.copy_seconds(part, changing, times))

    def _measured(self, feeds: Feeds, measure: Callable[[Lane, Feeds], float]) -> float:
        self.run(feeds)
        self.run(feeds)  # recorded by now, where work is recorded
        with self._lock:
            opened = self._usable()
            parts = [self._padded(opened, part) for part in self._parts(opened, feeds)]
            return sum(measure(self._lane(opened, part), part) for part in parts)

    def _usable(self) -> Opened:
        """Return what is open, on the GPU of this thread. Raises SessionError once closed."""
        if self._opened is None:
            raise SessionError(f"{self.name}: the session is closed; open it again")
        self._opened.device.activate()
        return self._opened

    def _parts(self, opened: Opened, feeds: Feeds) -> list[Feeds]:
        """Cut a batch above every profile into equal parts, as few as possible."""
        sizes = self._sizes(feeds)
        most = self._most_rows(opened, sizes)
        rows = sizes.get(BATCH, 1)
        if rows <= most:
            return [feeds]
        parts = -(-rows // most)  # equal ones: fewer shapes, less padding
        cuts = [rows * part // parts for part in range(1, parts)]
        pieces = {s.name: self._split(s.shape, feeds[s.name], cuts) for s in self.inputs}
        return [{name: split[part] for name, split in pieces.items()} for part in range(parts)]

    def _sizes(self, feeds: Feeds) -> dict[str, int]:
        return sizes_of(self.inputs, {name: array.shape for name, array in feeds.items()})

    @staticmethod
    def _split(
        shape: tuple[int | str, ...], array: NDArray[Any], cuts: list[int]
    ) -> list[NDArray[Any]]:
        if shape and shape[0] == BATCH:
            return np.split(array, cuts)
        return [array] * (len(cuts) + 1)

    def _most_rows(self, opened: Opened, sizes: Mapping[str, int]) -> int:
        """Return the largest batch that any profile takes with these other sizes."""
        fitting = self._fitting(opened, sizes)
        return max((p[BATCH].max for p in fitting), default=sizes.get(BATCH, 1))

    @staticmethod
    def _fitting(opened: Opened, sizes: Mapping[str, int]) -> list[Profile]:
        """Return the profiles of a free batch that fit in every other size."""
        others = {dim: size for dim, size in sizes.items() if dim != BATCH}
        return [
            p for p in opened.profiles if BATCH in p and all(n in p[d] for d, n in others.items())
        ]

    def _padded(self, opened: Opened, feeds: Feeds) -> Feeds:
        """Repeat the last row up to the least batch that a profile takes, where there are fewer."""
        sizes = self._sizes(feeds)
        rows = sizes.get(BATCH)
        if rows is None or choose(opened.profiles, sizes) is not None:
            return feeds
        enough = (p[BATCH].min for p in self._fitting(opened, sizes) if p[BATCH].min > rows)
        missing = min(enough, default=rows) - rows
        return {
            s.name: np.concatenate([feeds[s.name], *[feeds[s.name][-1:]] * missing])
            if s.shape and s.shape[0] == BATCH
            else feeds[s.name]
            for s in self.inputs
        }

    def _run_padded(self, opened: Opened, feeds: Feeds) -> dict[str, NDArray[Any]]:
        padded = self._padded(opened, feeds)
        done = self._run_whole(opened, padded)
        rows, ran = self._sizes(feeds).get(BATCH), self._sizes(padded).get(BATCH)
        if rows == ran:
            return done
        ours = [spec.name for spec in self.outputs if spec.shape and spec.shape[0] == BATCH]
        return done | {name: done[name][:rows].copy() for name in ours}

    def _run_whole(self, opened: Opened, feeds: Feeds) -> dict[str, NDArray[Any]]:
        try:
            lane = self._lane(opened, feeds)
            try:
                return lane.run(feeds)
            except LvdmError:
                lane.forget()
                raise
        except DeviceMemoryError:
            self._free()  # whatever the caller tries next will need room
            raise

    def _lane(self, opened: Opened, feeds: Feeds) -> Lane:
        """Return the buffers of the profile for these feeds, made at its first use."""
        sizes = self._sizes(feeds)
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
        if index not in self._lanes:
            self._lanes[index] = Lane(opened, index)
        return self._lanes[index]

    def _free(self) -> None:
        lanes, self._lanes = self._lanes, {}
        with ExitStack() as releases:
            for lane in lanes.values():
                releases.callback(lane.close)

    def close(self) -> None:
        """See `Session.close`; a run in another thread ends first.

        Everything is released even if a part of it fails, which is raised at the end.
        """
        with self._lock:
            opened, self._opened = self._opened, None
            if opened is None:
                return
            with ExitStack() as releases:  # from the last to the first
                releases.callback(opened.stream.close)
                releases.callback(self._free)
                if self._before_close is not None:
                    releases.callback(self._before_close)
                opened.device.activate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
