"""Workers that each hold something open and do pieces of work with it, on a cluster.

A piece is a function that workers can import, called with what a worker holds and with arguments
that can be pickled. Owns who does which piece, and what happens when a worker is lost: what it had
in hand is done by the next that is idle, and it comes back where the cluster has room for it.
Knows nothing of clips or of where the cluster is.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from typing import Any, NamedTuple

from lvdm_engines.errors import ClusterError, LvdmError, one_line
from lvdm_rt.scale.cluster_worker import ClusterWorker

_log = logging.getLogger(__name__)

MOST_LOSSES = 10  # of workers by the same piece


class Share(NamedTuple):
    """What one worker has of its machine, and how many such workers there are to be."""

    workers: int
    cpus: int
    gpus: int

    def __str__(self) -> str:
        """Say what one worker needs."""
        return f"{self.gpus} GPU" if self.gpus else f"{self.cpus} CPU cores"


class Outcome(NamedTuple):
    """What came of a unit of work: its result, or the error that ended it."""

    unit: Any
    result: Any
    error: Exception | None = None


@dataclass(eq=False)
class _Piece:
    """Work that is waiting or being done, and the promise of its result."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    promise: Future[Any] = field(default_factory=Future)
    losses: int = 0


class Crew:
    """The workers of one run; each does one piece at a time, in the order in which they were given.

    What it knows of workers and pieces belongs to one thread; what happens is queued for it.
    """

    def __init__(self, ray: Any, share: Share, opening: Callable[[], Any]) -> None:
        """Ask the cluster for workers; see `connect`."""
        self.share = share
        self.ready = 0  # workers that hold what they should, and were not lost since
        self._ray = ray
        self._idle, self._waiting = deque[Any](), deque[_Piece]()
        self._running: set[_Piece] = set()
        self._ended: Exception | None = None  # why nothing is done any more
        self._door = threading.Lock()  # nothing comes in after the end
        self._placed: Future[None] = Future()
        self._started: Future[None] = Future()
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        placed = ray.remote(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=-1, max_task_retries=-1
        )(ClusterWorker)
        self._actors = [placed.remote(opening) for _ in range(share.workers)]
        for actor in self._actors:
            self._await(actor)
        self._thread = threading.Thread(target=self._serve, name="lvdm-rt crew", daemon=True)
        self._thread.start()

    @property
    def size(self) -> int:
        """How many workers there are to be: so many pieces are worth having under way."""
        return self.share.workers

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Let the next worker that is idle call `function(held, *arguments)`; from any thread.

        Cancelling the future keeps a piece that is not begun from being done.
        """
        piece = _Piece(function, arguments)
        with self._door:
            if self._ended is None:
                self._events.put(partial(self._take, piece))
            else:
                piece.promise.set_exception(self._ended)
        return piece.promise

    def map(self, function: Callable[..., Any], units: Iterable[Any]) -> Iterator[Outcome]:
        """Do `function(held, unit)` for every unit; yield what comes of each, as it comes.

        Units are taken one for each worker, and one more whenever a worker is done, so that
        `units` may be endless. An error is part of the outcome and stops nothing; only where no
        worker is left ClusterError is raised.
        """
        upcoming, running = iter(units), dict[Future[Any], Any]()
        try:
            while True:
                for unit in islice(upcoming, self.size - len(running)):
                    running[self.submit(function, unit)] = unit
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    unit, err = running.pop(future), future.exception()
                    if isinstance(err, ClusterError) or not isinstance(err, Exception | None):
                        raise err
                    yield Outcome(unit, None if err else future.result(), err)
        finally:
            for future in running:
                future.cancel()

    def await_first(self, seconds: float) -> None:
        """Wait until a worker is ready; `seconds` may pass until there is room for one.

        Raises what keeps it from starting, or ClusterError.
        """
        try:
            self._placed.result(seconds)
        except TimeoutError:
            free = self._ray.available_resources()
            raise ClusterError(
                f"no room for a worker within {seconds:.0f} s: each needs {self.share}, the "
                f"cluster has {free.get('CPU', 0):g} CPU cores and {free.get('GPU', 0):g} GPUs "
                "free; wait until others have ended, or ask for less"
            ) from None
        self._started.result()

    def close(self) -> None:
        """End the workers at once, whatever they do; what is not done raises ClusterError."""
        with self._door:
            self._ended = ClusterError("the workers were ended")
            self._events.put(None)
        self._thread.join()
        for actor in self._actors:
            with suppress(Exception):  # of a cluster that is gone already
                self._ray.kill(actor)
        self._end(self._ended)

    def _serve(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                event()
                self._hand_out()
            except Exception as err:  # noqa: BLE001 - of Ray, where the cluster has gone
                _log.info("the cluster is given up", exc_info=True)
                self._end(ClusterError(f"the cluster does not answer ({_last_line(err)})"))

    def _hand_out(self) -> None:
        while self._idle and self._waiting:
            piece = self._waiting.popleft()
            if piece.promise.running() or piece.promise.set_running_or_notify_cancel():
                self._give(self._idle.popleft(), piece)

    def _take(self, piece: _Piece) -> None:
        if self._ended is None:
            self._waiting.append(piece)
        elif piece.promise.set_running_or_notify_cancel():
            piece.promise.set_exception(self._ended)

    def _give(self, actor: Any, piece: _Piece) -> None:
        try:
            # Ray would try again on the same worker, which may have no place to come back to.
            once = actor.run.options(max_task_retries=0)
            call = once.remote(piece.function, *piece.arguments)
        except Exception as err:  # noqa: BLE001 - what cannot be pickled
            self._idle.append(actor)
            piece.promise.set_exception(err)
            return
        self._running.add(piece)
        self._then(call, partial(self._on_done, actor, piece))

    def _then(self, call: Any, react: Callable[[Future[Any]], None]) -> None:
        """Let the crew's thread react to the end of a call."""
        call.future().add_done_callback(lambda done: self._events.put(partial(react, done)))

    def _on_done(self, actor: Any, piece: _Piece, done: Future[Any]) -> None:
        """Hand on what a worker says; what a lost one had in hand is done by another."""
        self._running.remove(piece)
        err = done.exception()
        if err is not None and self._is_loss(err):
            self._on_loss(actor, piece, err)
            return
        self._idle.append(actor)
        if err is None:
            piece.promise.set_result(done.result())
        else:
            piece.promise.set_exception(_as_raised(err))

    def _on_loss(self, actor: Any, piece: _Piece, err: BaseException) -> None:
        """Let another worker do what a lost one had in hand, and see which of the idle ones live.

        A piece would else go from one lost worker of the same machine to the next.
        """
        _log.warning("a worker was lost, and what it had in hand is done again")
        piece.losses += 1
        if piece.losses < MOST_LOSSES:
            self._waiting.appendleft(piece)
        else:
            text = (
                f"{MOST_LOSSES} workers were lost over the same piece of work; their machines may "
                f"have too little memory for it ({_last_line(err)})"
            )
            piece.promise.set_exception(ClusterError(text))
        doubtful = [actor, *self._idle]
        self._idle.clear()
        self.ready -= len(doubtful)
        for one in doubtful:
            self._await(one)

    def _is_loss(self, err: BaseException) -> bool:
        errors = self._ray.exceptions
        return isinstance(err, errors.RayError) and not isinstance(err, errors.RayTaskError)

    def _await(self, actor: Any) -> None:
        """Take a worker for idle once it holds what it should, however often it is restarted."""
        self._then(actor.version.remote(), partial(self._on_placed, actor))

    def _on_placed(self, actor: Any, told: Future[str]) -> None:
        err, ours = told.exception(), version("lvdm-rt")
        if err is None and told.result() != ours:
            err = ClusterError(
                f"a worker has lvdm-rt {told.result()}, this machine {ours}; install the same on "
                "every machine"
            )
        if err is None:
            _settle(self._placed)
            self._then(actor.open.remote(), partial(self._on_open, actor))
        else:
            self._go_without(actor, _as_raised(err))

    def _on_open(self, actor: Any, opened: Future[None]) -> None:
        err = opened.exception()
        if err is None:
            self.ready += 1
            self._idle.append(actor)
            _settle(self._started)
        else:
            self._go_without(actor, _as_raised(err))

    def _go_without(self, actor: Any, err: BaseException) -> None:
        """Give up a worker that cannot start; without any, what waits can never be done."""
        if not isinstance(err, LvdmError):
            err = ClusterError(
                f"a worker cannot start ({_last_line(err)}); is the same lvdm-rt installed on "
                "every machine?"
            )
        self._actors.remove(actor)
        if not self._started.done():
            _settle(self._placed)
            self._started.set_exception(err)
        elif self._actors:
            _log.warning("%d workers go on without another one: %s", len(self._actors), err)
        if not self._actors:
            self._end(err)

    def _end(self, err: Exception) -> None:
        """Let nobody wait for what will not be done."""
        self._ended = err
        _settle(self._placed)
        for promise in [
            self._started,
            *(piece.promise for piece in self._running | {*self._waiting}),
        ]:
            with suppress(InvalidStateError):  # it was cancelled, or has ended
                promise.set_exception(err)
        self._running.clear()
        self._waiting.clear()


def _settle(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _as_raised(err: BaseException) -> BaseException:
    """Return the error that a worker raised, without what Ray puts around it."""
    cause = getattr(err, "cause", None)
    return cause if isinstance(cause, Exception) else err


def _last_line(err: BaseException) -> str:
    lines = str(err).strip().splitlines()
    return one_line(lines[-1]) if lines else type(err).__name__
