"""One thread that makes the videos of the queue, those in one batch that can share it.

A batch keeps its members until all have ended, over restarts of the server as well: in another
company a network could round differently. When one is cancelled the run is ended, within one
network call, and the others go on with the clips that are finished; what was written and told of
them stays. When a batch fails, each member is tried alone. Knows no HTTP.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from lvdm_engines.errors import LvdmError, OtherRunError, VideoError
from lvdm_rt.background import RunStream
from lvdm_rt.pipeline import Chunk, Pipeline
from lvdm_rt.progress import Preview, PreviewCallback, Progress
from lvdm_rt.serve.api import job_error
from lvdm_rt.serve.broadcast import Advanced, Broadcaster, FilmGrew, Previewed, StatusChanged
from lvdm_rt.serve.conditions import load_frames
from lvdm_rt.serve.film import Film
from lvdm_rt.serve.jobs import JobError, Status, VideoJob
from lvdm_rt.serve.metrics import Metrics
from lvdm_rt.serve.store import JobStore

_log = logging.getLogger(__name__)

Films = Mapping[str, Film]
_NAME = "lvdm-rt serve worker"
_SAMPLING = 0.9  # of all work; the rest is decoding and writing
_IDLE = 10.0  # seconds between two looks at what has expired
_PAUSE = 2.0  # seconds after the folder could not be read or written


class Worker:
    """Makes batch after batch until it is stopped."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: JobStore,
        broadcaster: Broadcaster,
        metrics: Metrics,
        tidy: Callable[[], None],
        keep: float | None = None,
    ) -> None:
        """Make what is in the store, to be kept for `keep` seconds.

        `tidy` is called after each batch, and now and then.
        """
        self._thread = threading.Thread(target=self._work, name=_NAME, daemon=True)
        self._pipeline, self._store, self._broadcaster, self._metrics = (
            pipeline,
            store,
            broadcaster,
            metrics,
        )
        self._tidy, self._keep = tidy, keep
        self._wake, self._draining, self._parking = (threading.Event() for _ in range(3))
        self._lock = threading.Lock()  # of the three below
        self._stream: RunStream[Chunk] | None = None
        self._making: frozenset[str] = frozenset()
        self._ended_early = False
        self._percent: dict[str, int] = {}
        self._renewed: set[int] = set()  # batches that were begun anew
        self.batch_seconds = 1.0  # that the last one took

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it works, or waits for jobs."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Look for new jobs."""
        self._wake.set()

    def percent(self, job: str) -> int:
        """Return how far a job is that is being made."""
        return self._percent.get(job, 0)

    def needs(self, job: str) -> bool:
        """Tell whether what is being made goes through the clips of this job, whole or not."""
        with self._lock:
            return job in self._making

    def drop(self, job: str) -> None:
        """Stop work on a job that was cancelled; returns when nothing is done for it any more."""
        self._end_stream(job)

    def stop(self, grace: float) -> None:
        """Begin nothing new, wait so many seconds for what is being made, then leave it for later.

        Jobs that are left keep their finished clips, and the next server goes on with them.
        """
        self._draining.set()
        self._wake.set()
        self._thread.join(grace)
        self._parking.set()
        self._end_stream(None)
        self._thread.join()

    def _end_stream(self, job: str | None) -> None:
        with self._lock:
            stream = self._stream
            if stream is None or not (job is None or job in self._making):
                return
            self._ended_early = True
        stream.close()

    def _work(self) -> None:
        while not self._draining.is_set():
            self._wake.clear()
            try:
                self._tidy()
                batch = self._next()
                if batch is None:
                    self._wake.wait(_IDLE)
                else:
                    began = time.monotonic()
                    self._make(batch)
                    self.batch_seconds = time.monotonic() - began
            except Exception:  # noqa: BLE001 - a full disk, above all: the server answers on
                _log.exception("the queue cannot be worked on; trying again")
                self._draining.wait(_PAUSE)

    def _next(self) -> int | None:
        """Return the number of the next batch: one that was begun, or the oldest job with its kin.

        None if there is nothing to do.
        """
        begun = [job.batch for job in self._store.with_status("in_progress")]
        if begun:
            return min(batch for batch in begun if batch is not None)
        waiting = self._store.with_status("queued")
        if not waiting:
            return None
        first = waiting[0]
        kin = [job for job in waiting if _kind(job) == _kind(first)]
        chosen = kin[: first.settings.batch_size]
        self._store.begin(chosen, first.number, time.time())
        for job in chosen:
            self._tell_status(job.id, "in_progress")
        return first.number

    def _make(self, batch: int) -> None:
        """Make the videos of a batch until each has ended, or the server stops."""
        members = self._store.batch(batch)
        films = {
            job.id: Film(job, self._store.result(job.id), self._pipeline)
            for job in members
            if job.status == "in_progress"
        }
        try:
            for film in films.values():
                if film.was_finished():
                    self._finish(film)
            self._run(batch, films)
        except Exception as err:  # noqa: BLE001 - the next job is not to blame
            known = isinstance(err, LvdmError)
            _log.error("batch %d has failed: %s", batch, err, exc_info=None if known else err)
            if isinstance(err, OtherRunError) and batch not in self._renewed:
                self._renewed.add(batch)  # clips of another engine, or of an older version
                for job in members:  # those that are whole as well: they are gone through again
                    self._store.clear_work(job.id)
            else:
                self._fail(batch, err)
        finally:
            for film in films.values():
                film.abort()
        if self._is_being_made(batch):
            return
        for job in members:
            now = self._store.get(job.id)
            if now is None or now.has_ended:  # and does not go on alone
                self._percent.pop(job.id, None)
                self._store.clear_needed(job.id)

    def _is_being_made(self, batch: int) -> bool:
        return any(job.status == "in_progress" for job in self._store.batch(batch))

    def _run(self, batch: int, films: Films) -> None:
        """Write frames until no member is left that wants any, or the server stops."""
        while True:
            with self._lock:  # who cancels comes before, or finds the stream that is to be closed
                members = self._store.batch(batch)
                if self._parking.is_set() or not self._is_being_made(batch):
                    return
                stream = self._stream = self._opened(members, films)
                self._making = frozenset(job.id for job in members)
                self._ended_early = False
            for name in films.keys() - self._making:
                films[name].abort()
            try:
                with stream:
                    for chunk in stream:
                        self._write(films.get(members[chunk.video].id), chunk)
            finally:
                with self._lock:
                    self._stream, self._making = None, frozenset()
            if not self._ended_early and self._is_being_made(batch):
                raise VideoError("got fewer frames than were asked for")

    def _opened(self, members: list[VideoJob], films: Films) -> RunStream[Chunk]:
        of_condition = self._store.condition(members[-1].id)
        return self._pipeline.stream_videos(
            [job.settings for job in members],
            condition=None if members[-1].condition is None else load_frames(of_condition),
            work=[self._store.work(job.id) for job in members],
            resume=True,
            progress=lambda done: self._advance(done, members, films),
            preview=self._shown_to(members) if self._pipeline.manifest.preview else None,
        )

    def _shown_to(self, members: list[VideoJob]) -> PreviewCallback:
        """Return what tells each member how the first of its clips in a network call looks."""

        def show(clips: Sequence[Preview]) -> None:
            first = {clip.video: clip for clip in reversed(clips)}
            for video, clip in first.items():
                self._broadcaster.tell(members[video].id, Previewed(clip.stage, clip.pictures))

        return show

    def _advance(self, done: Progress, members: list[VideoJob], films: Films) -> None:
        """Tell how far each member is; they take their steps together."""
        steps, total = done.steps // len(members), done.total_steps // len(members)
        for job in members:
            film = films.get(job.id)
            if film is None or film.is_whole():
                continue
            frames, wanted = film.count, job.settings.frames
            part = _SAMPLING * steps / max(total, 1) + (1 - _SAMPLING) * frames / wanted
            # what was told is never taken back, and all is done when the file is whole
            self._percent[job.id] = max(self.percent(job.id), min(99, int(100 * part)))
            news = Advanced(self._percent[job.id], steps, total, frames, wanted)
            self._broadcaster.tell(job.id, news)

    def _write(self, film: Film | None, chunk: Chunk) -> None:
        """Write what is new of a chunk and tell it; the last frames end the job."""
        if film is None or film.is_whole():
            return
        first = film.count == 0
        new = film.add(chunk)
        now = time.time()
        if first and self._store.show(film.job.id, now):
            self._metrics.first_frame(now - film.job.created)
        self._metrics.frames(len(new))
        self._broadcaster.tell(film.job.id, FilmGrew(film.count))
        if film.is_whole():
            self._finish(film)

    def _finish(self, film: Film) -> None:
        size, now, job = film.close(), time.time(), film.job
        expires = None if self._keep is None else now + self._keep
        if self._store.end(job.id, "completed", now, size=size, expires=expires):
            self._metrics.completed(now - job.created)
            self._tell_status(job.id, "completed")
        else:  # cancelled in this moment
            self._store.clear(job.id)

    def _fail(self, batch: int, err: Exception) -> None:
        """End the job that has failed; of several make each alone, for one may be to blame."""
        going = [job for job in self._store.batch(batch) if job.status == "in_progress"]
        for job in going:
            if len(going) > 1:
                self._store.begin([job], job.number, time.time())
            else:
                self._end(job, "failed", job_error(err))

    def _end(self, job: VideoJob, status: Status, error: JobError) -> None:
        now = time.time()
        expires = None if self._keep is None else now + self._keep
        if self._store.end(job.id, status, now, error=error, expires=expires):
            self._tell_status(job.id, status)

    def _tell_status(self, job: str, status: Status) -> None:
        _log.info("%s is %s", job, status)
        self._metrics.job(status)
        self._broadcaster.tell(job, StatusChanged(status))


def _kind(job: VideoJob) -> tuple[object, ...]:
    """Return what videos of one batch have in common."""
    return replace(job.settings, seed=0, first_video=0, prompts=None), job.condition
