"""A plan of TensorRT or TensorRT-RTX, open on a GPU."""

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.plan_facts import Range
from lvdm_engines.backends.trt.context import OpenEngine
from lvdm_engines.backends.trt.profile_buffers import ProfileBuffers
from lvdm_engines.backends.trt.profiles import BATCH, choose, fits
from lvdm_engines.errors import DeviceMemoryError, LvdmError, SessionError
from lvdm_engines.manifest import TensorSpec
from lvdm_engines.session import check_feeds, sizes_of

Feeds = Mapping[str, NDArray[Any]]


class TrtSession:
    """See `Session`, `Timed` and `Profiled`.

    Runs of one session take turns; every profile has buffers of its own. A batch above the largest
    profile runs in parts, and one below the smallest beside rows that are thrown away, since rows
    are independent.
    """

    def __init__(
        self, opened: OpenEngine, rebuild: str, before_close: Callable[[], None] | None = None
    ) -> None:
        self.name = opened.name
        self.backend = opened.library.name
        self.inputs = opened.inputs
        self.outputs = opened.outputs
        self.profiles = opened.profiles
        self._opened: OpenEngine | None = opened
        self._rebuild = rebuild
        self._before_close = before_close
        self._buffers: dict[int, ProfileBuffers] = {}  # by profile
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Session.run`; the outputs are copies out of buffers that are used again."""
        check_feeds(self.inputs, feeds, self.name)
        with self._lock:
            opened = self._usable()
            done = [self._run_padded(opened, part) for part in self._parts(feeds)]
        if len(done) == 1:
            return done[0]
        return {spec.name: np.concatenate([d[spec.name] for d in done]) for spec in self.outputs}

    def device_seconds(self, feeds: Feeds, times: int) -> float:
        """See `Timed.device_seconds`."""
        return self._measured(feeds, lambda buffers, part: buffers.device_seconds(part, times))

    def copy_seconds(self, feeds: Feeds, changing: Collection[str], times: int) -> float:
        """See `Timed.copy_seconds`."""
        return self._measured(
            feeds, lambda buffers, part: buffers.copy_seconds(part, changing, times)
        )

    def _measured(self, feeds: Feeds, measure: Callable[[ProfileBuffers, Feeds], float]) -> float:
        self.run(feeds)
        self.run(feeds)  # recorded by now, where work is recorded
        with self._lock:
            opened = self._usable()
            parts = [self._padded(part) for part in self._parts(feeds)]
            return sum(measure(self._buffers_for(opened, part), part) for part in parts)

    def _usable(self) -> OpenEngine:
        """Return what is open, on the GPU of this thread. Raises SessionError once closed."""
        if self._opened is None:
            raise SessionError(f"{self.name}: the session is closed; open it again")
        self._opened.device.activate()
        return self._opened

    def _sizes(self, feeds: Feeds) -> dict[str, int]:
        return sizes_of(self.inputs, {name: array.shape for name, array in feeds.items()})

    def _batches(self, sizes: Mapping[str, int]) -> list[Range]:
        """Return the batches of the profiles that fit in every other size."""
        others = {dim: size for dim, size in sizes.items() if dim != BATCH}
        return [p[BATCH] for p in self.profiles if BATCH in p and fits(p, others)]

    def _parts(self, feeds: Feeds) -> list[Feeds]:
        """Cut a batch above every profile into equal parts, as few as possible."""
        sizes = self._sizes(feeds)
        rows = sizes.get(BATCH, 1)
        most = max((batch.max for batch in self._batches(sizes)), default=rows)
        count = -(-rows // most)  # equal ones: fewer shapes, less padding
        cuts = [rows * part // count for part in range(count + 1)]
        return [
            {s.name: _rows(s, feeds[s.name], slice(*cut)) for s in self.inputs}
            for cut in pairwise(cuts)
        ]

    def _padded(self, feeds: Feeds) -> Feeds:
        """Repeat the last row where every profile wants more rows."""
        sizes = self._sizes(feeds)
        if BATCH not in sizes or choose(self.profiles, sizes) is not None:
            return feeds
        rows = sizes[BATCH]
        enough = min((b.min for b in self._batches(sizes) if b.min > rows), default=rows)
        index = np.minimum(np.arange(enough), rows - 1)
        return {s.name: _rows(s, feeds[s.name], index) for s in self.inputs}

    def _run_padded(self, opened: OpenEngine, feeds: Feeds) -> dict[str, NDArray[Any]]:
        padded = self._padded(feeds)
        done = self._run_whole(opened, padded)
        if padded is feeds:
            return done
        rows = self._sizes(feeds)[BATCH]
        return {s.name: _rows(s, done[s.name], slice(rows)).copy() for s in self.outputs}

    def _run_whole(self, opened: OpenEngine, feeds: Feeds) -> dict[str, NDArray[Any]]:
        try:
            buffers = self._buffers_for(opened, feeds)
            try:
                return buffers.run(feeds)
            except LvdmError:
                buffers.forget()
                raise
        except DeviceMemoryError:
            self._free()  # whatever the caller tries next will need room
            raise

    def _buffers_for(self, opened: OpenEngine, feeds: Feeds) -> ProfileBuffers:
        """Return the buffers of the profile for these feeds, made at its first use."""
        sizes = self._sizes(feeds)
        index = choose(self.profiles, sizes) if self.profiles else 0
        if index is None:
            got = ", ".join(f"{dim} = {size}" for dim, size in sizes.items())
            allowed = "; ".join(
                ", ".join(f"{dim} = {size}" for dim, size in profile.items())
                for profile in self.profiles
            )
            raise SessionError(
                f"{self.name}: got {got}, expected one of the plan's profiles ({allowed}); "
                f"build again with another --batch: {self._rebuild}"
            )
        if index not in self._buffers:
            self._buffers[index] = ProfileBuffers(opened, index)
        return self._buffers[index]

    def _free(self) -> None:
        held, self._buffers = self._buffers, {}
        with ExitStack() as releases:
            for buffers in held.values():
                releases.callback(buffers.close)

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


def _rows(spec: TensorSpec, array: NDArray[Any], which: Any) -> NDArray[Any]:
    """Return rows of a tensor that has a batch, and any other as it is."""
    rows: NDArray[Any] = array[which] if spec.shape[:1] == (BATCH,) else array
    return rows
