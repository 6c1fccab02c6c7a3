"""One long video over many workers: who samples which clips and decodes which windows, and when.

The chain of keyframes, which nothing can shorten, goes first; then decode windows, since frames
free memory; then what refines keyframes, and gaps. Frames come in order. Batches of clips are those
of a single process, each sampled from the same latents, so that the bits are the same.

Knows plans and a pool that does pieces of work; nothing of Ray, or of how pieces are done.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.background import Stop
from lvdm_rt.decoding.frames import Chunk, FilmsInWork, FilmWindow
from lvdm_rt.diffusion.noise import Stage
from lvdm_rt.long.plan import ClipBatch, batches
from lvdm_rt.long.sampling import SamplingRun, steps_of, store, stored
from lvdm_rt.long.videos import VideosInWork
from lvdm_rt.request import Request
from lvdm_rt.scale.maker import PieceMaker

Array = NDArray[np.float32]
Frames = NDArray[np.uint8]

AHEAD = 6  # batches for each worker from the oldest unfinished one on, decode windows included
_URGENCY = {Stage.PREDICT: 0, Stage.SHORT: 0, Stage.REFINE: 2, Stage.INFILL: 3}  # decoding: 1


class Pool(Protocol):
    """Workers that hold a `PieceMaker` each."""

    @property
    def size(self) -> int:
        """How many pieces can be done at once."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Let a worker call `function(maker, *arguments)`."""


def spread(
    pool: Pool, request: Request, run: SamplingRun, films: FilmsInWork, stop: Stop
) -> Generator[Chunk, None, None]:
    """Make the videos of a run with the workers of a pool; yields their frames until `stop` is set.

    Memory is bounded: nothing is begun while the reader is busy with a chunk, nor far ahead of what
    is not finished.

    Raises what a worker raises, WorkError, and ClusterError if none is left.
    """
    work = _Spread(pool, request, run, films)
    with stop.calling(work.wake):
        try:
            yield from work.chunks(stop)
        finally:
            work.cancel()


class _Clips:
    """A batch of clips, kept until all before it and itself are finished."""

    def __init__(self, batch: ClipBatch) -> None:
        self.batch = batch
        self.begun = self.finished = False


class _Decoding:
    """A decode window, kept until all before it of its video and itself are decoded."""

    def __init__(self, window: FilmWindow) -> None:
        self.window = window
        self.begun = False
        self.frames: Frames | None = None


class _Spread:
    """What waits, what is being done, and what came of it."""

    def __init__(self, pool: Pool, request: Request, run: SamplingRun, films: FilmsInWork) -> None:
        self._pool, self._run, self._films = pool, run, films
        self._told = replace(request, condition=None)  # no piece needs it
        self._videos = VideosInWork(run.plan, run.model.latent, run.condition)
        self._upcoming = batches(run.plan, run.videos, run.settings.batch_size)
        self._clips: deque[_Clips] = deque()
        self._windows: dict[int, deque[_Decoding]] = {}  # of each video, in order
        self._running: dict[Future[Any], _Clips | _Decoding] = {}
        self._woken: Future[None] = Future()

    def chunks(self, stop: Stop) -> Iterator[Chunk]:
        """Yield frames as they become final."""
        while True:
            self._look_ahead()
            while len(self._running) < self._pool.size and self._begin():
                self._look_ahead()
            if not self._running:
                break
            wait([*self._running, self._woken], return_when=FIRST_COMPLETED)
            stop.check()
            for future in [future for future in self._running if future.done()]:
                yield from self._ended(self._running.pop(future), future.result())
        if self._clips:
            raise RuntimeError("there are clips that nothing will ever come for")

    def wake(self, _: int = 0) -> None:
        """Let `chunks` look at whether it should stop."""
        with suppress(InvalidStateError):  # it was told before
            self._woken.set_result(None)

    def cancel(self) -> None:
        """Keep what is not begun from being done."""
        for future in self._running:
            future.cancel()

    def _look_ahead(self) -> None:
        """Take batches of the plan into view, unless as much is still to be decoded."""
        windows = sum(map(len, self._windows.values()))
        missing = AHEAD * self._pool.size - len(self._clips) - windows
        self._clips.extend(map(_Clips, islice(self._upcoming, max(0, missing))))

    def _begin(self) -> bool:
        """Begin the most urgent piece that has all it needs; tell whether there was one."""
        clips = [clips for clips in self._clips if not clips.begun]
        clips.sort(key=lambda clips: _URGENCY[clips.batch.stage])  # and in order of the plan
        chain = [clips for clips in clips if _URGENCY[clips.batch.stage] == 0]
        return (
            any(self._sample(clips) for clips in chain)
            or any(self._decode(window) for line in self._windows.values() for window in line)
            or any(self._sample(clips) for clips in clips[len(chain) :])
        )

    def _sample(self, clips: _Clips) -> bool:
        try:
            work = self._videos.work(clips.batch)
        except KeyError:  # what it starts from is being sampled
            return False
        clips.begun = True
        if (latents := stored(self._run, clips.batch)) is not None:
            self._keep(clips, latents)
        else:
            self._running[self._pool.submit(PieceMaker.sample, self._told, work)] = clips
        return True

    def _decode(self, decoding: _Decoding) -> bool:
        if decoding.begun:
            return False
        decoding.begun = True
        latents = decoding.window.window.latents
        self._running[self._pool.submit(PieceMaker.decode, self._told, latents)] = decoding
        return True

    def _ended(self, piece: _Clips | _Decoding, result: Any) -> Iterator[Chunk]:
        """Take what came of a piece; yield the frames that are final with it."""
        if isinstance(piece, _Clips):
            store(self._run, piece.batch, result)
            self._run.step(len(piece.batch.sites) * steps_of(self._run, piece.batch.stage))
            self._keep(piece, result)
            return
        piece.frames = result
        video = piece.window.video
        line = self._windows[video]
        while line and (frames := line[0].frames) is not None:
            yield from self._films.chunks(line.popleft().window, frames)
        if not line:
            del self._windows[video]

    def _keep(self, clips: _Clips, latents: "Array | list[Array]") -> None:
        """Take the new latents of clips into their videos, and cut what is ready into windows."""
        clips.finished = True
        while self._clips and self._clips[0].finished:
            self._clips.popleft()
        for chunk in self._videos.keep(clips.batch, latents):
            for window in self._films.windows(chunk):
                self._windows.setdefault(window.video, deque()).append(_Decoding(window))
