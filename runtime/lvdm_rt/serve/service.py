"""What the server does for a client, in any thread and without HTTP."""

import hashlib
import math
import secrets
import threading
import time
import uuid
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import msgspec

from lvdm_engines.errors import LvdmError, OptionsError
from lvdm_rt.options import Settings
from lvdm_rt.pipeline import Pipeline
from lvdm_rt.request import model_sha256
from lvdm_rt.serve.api import (
    VideoObject,
    VideoRequest,
    as_refusal,
    frame_size,
    options_of,
    video_object,
)
from lvdm_rt.serve.broadcast import Broadcaster, StatusChanged
from lvdm_rt.serve.conditions import ConditionReader, WantedFrames, load_frames
from lvdm_rt.serve.jobs import VideoJob
from lvdm_rt.serve.limits import ServeLimits
from lvdm_rt.serve.metrics import Metrics
from lvdm_rt.serve.pictures import draw
from lvdm_rt.serve.refusals import RefusedError, no_such_video
from lvdm_rt.serve.store import JobStore
from lvdm_rt.serve.worker import Worker

_SEEDS = 2**31  # that are drawn: every client can hold one


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How long results are kept: seconds after their end, and bytes of all; None without end."""

    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One request: its fields, who sends it, the client's own name for it, and an upload."""

    fields: VideoRequest
    client: str
    key: str | None = None
    upload: Path | None = None


class Service:
    """One pipeline, the jobs of one folder, and the worker between them."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: JobStore,
        metrics: Metrics,
        *,
        limits: ServeLimits | None = None,
        keeping: Keeping | None = None,
        batch_size: int | None = None,
        exact: bool = False,
    ) -> None:
        """Serve a model; `batch_size` and `exact` hold for every job.

        Raises OptionsError where the folder has unfinished jobs of another model.
        """
        self.pipeline, self.store, self.metrics = pipeline, store, metrics
        self.limits, self._keeping = limits or ServeLimits(), keeping or Keeping()
        self._batch_size, self._exact = batch_size, exact
        self.broadcaster = Broadcaster()
        self._conditions = ConditionReader(self.limits)
        self._admitting = threading.Lock()
        self._stopping = False
        self._model = model_sha256(pipeline.manifest)
        self._refuse_other_model()
        store.sweep()
        self.worker = Worker(
            pipeline, store, self.broadcaster, metrics, self._tidy, self._keeping.seconds
        )

    def _refuse_other_model(self) -> None:
        for job in self.store.with_status("queued", "in_progress"):
            if job.model_sha256 != self._model:
                raise OptionsError(
                    f"{self.store.folder} has unfinished jobs of {job.model}, which is not the "
                    "bundle to be served; serve that one, or choose another --folder"
                )

    def start(self) -> None:
        """Begin to work on what is in the folder."""
        self.worker.start()

    def stop(self, grace: float) -> None:
        """Take no more jobs, give those that are being made `grace` seconds, and let all go."""
        self._stopping = True
        self.worker.stop(grace)
        self.broadcaster.close()

    @property
    def is_ready(self) -> bool:
        """Whether a job that is asked for now would be made."""
        return self.worker.is_alive and not self._stopping

    def accept(self, asking: Asking) -> VideoJob:
        """Take a job, or return the one that was asked for with the same key before.

        Raises RefusedError for what cannot be met, or is too much.
        """
        if self._stopping:
            raise RefusedError("the server is stopping; ask again later", 503, retry_after=10)
        asked = _fingerprint(asking)
        known = self._known(asking, asked)
        if known is not None:
            return known
        self.check_room(asking.client)  # before an upload is read
        settings = self._settings(asking.fields)
        job = VideoJob(
            id=f"video_{uuid.uuid4().hex}",
            model=self.pipeline.manifest.name,
            model_sha256=self._model,
            size=frame_size(self.pipeline.manifest),
            settings=settings,
            client=asking.client,
            key=asking.key,
            asked=asked,
            created=time.time(),
        )
        taken = None
        try:
            taken = self._admit(self._with_condition(job, asking.upload))
        finally:
            if taken is None or taken.id != job.id:
                self.store.condition(job.id).unlink(missing_ok=True)
        return taken

    def _known(self, asking: Asking, asked: str) -> VideoJob | None:
        if asking.key is None:
            return None
        job = self.store.by_key(asking.client, asking.key)
        if job is not None and job.asked != asked:
            raise RefusedError(
                "got an Idempotency-Key that was used for another request; take a new one",
                409,
                "idempotency_key_reused",
            )
        return job

    def _settings(self, fields: VideoRequest) -> Settings:
        """Return checked settings. Raises RefusedError."""
        try:
            options = options_of(fields, self.pipeline.manifest, secrets.randbelow(_SEEDS))
            if options.frames > self.limits.frames:
                raise RefusedError(
                    f"got {options.frames} frames, expected at most {self.limits.frames}",
                    code="too_many_frames",
                    param="num_frames",
                )
            own = {"batch_size": self._batch_size, "exact": options.exact or self._exact}
            return self.pipeline.settings(msgspec.structs.replace(options, **own))
        except LvdmError as err:
            raise as_refusal(err) from err

    def _with_condition(self, job: VideoJob, upload: Path | None) -> VideoJob:
        """Read what is uploaded, and make sure that the model can do what is asked."""
        condition = None
        target = self.store.condition(job.id)
        manifest = self.pipeline.manifest
        if upload is not None:
            wanted = WantedFrames(
                count=self.pipeline.condition_frames(job.settings),
                size=manifest.model.frame_size,
                fps=Fraction(manifest.defaults.fps).limit_denominator(1001),
            )
            sha256 = self._conditions.read(upload, wanted, target)
            job = msgspec.structs.replace(job, condition=sha256)
            condition = load_frames(target)
        try:  # all that can be known before the first network call
            self.pipeline.stream_videos([job.settings], condition=condition).close()
        except LvdmError as err:
            raise as_refusal(err) from err
        return job

    def _admit(self, job: VideoJob) -> VideoJob:
        with self._admitting:
            if job.key is not None and (known := self.store.by_key(job.client, job.key)):
                return known  # asked for twice at once
            self.check_room(job.client)
            job = self.store.add(job)
        self.metrics.job("queued")
        self.broadcaster.tell(job.id, StatusChanged("queued"))
        self.worker.wake()
        return job

    def check_room(self, client: str) -> None:
        """Raise RefusedError where the queue is full, or a client has enough jobs."""
        wait = max(1, math.ceil(self.worker.batch_seconds))
        if self.store.count("queued") >= self.limits.queue:
            raise RefusedError(
                f"{self.limits.queue} jobs wait already; ask again later",
                429,
                "queue_full",
                retry_after=wait,
            )
        if self.store.count("queued", "in_progress", client=client) >= self.limits.client_jobs:
            raise RefusedError(
                f"you have {self.limits.client_jobs} jobs that wait or are being made; ask again "
                "when one has ended",
                429,
                "too_many_jobs",
                retry_after=wait,
            )

    def get(self, job: str) -> VideoJob:
        """Return a job. Raises RefusedError."""
        found = self.store.get(job)
        if found is None:
            raise no_such_video(job)
        return found

    def told(self, job: VideoJob) -> VideoObject:
        """Return a job as clients see it."""
        return video_object(job, self.worker.percent(job.id))

    def result(self, job: str) -> Path:
        """Return the file of a video. Raises RefusedError where there is none (yet)."""
        found, path = self.get(job), self.store.result(job)
        if found.status != "completed" or not path.is_file():
            raise RefusedError(
                f"{job} is {found.status} and has no content; ask for a completed one",
                409 if found.status in ("queued", "in_progress") else 404,
                "no_content",
            )
        return path

    def picture(self, job: str, variant: str) -> Path:
        """Return a picture of a video, one of `pictures.VARIANTS`. Raises RefusedError."""
        video, path = self.result(job), self.store.picture(job, variant)
        if not path.is_file():
            draw(self.get(job), video, variant, path)
        return path

    def delete(self, job: str) -> VideoJob | None:
        """Cancel a job and return it, or remove one that has ended. Raises RefusedError.

        When it returns nothing is done any more for the job.
        """
        expires = None if self._keeping.seconds is None else time.time() + self._keeping.seconds
        if self.store.end(job, "cancelled", time.time(), expires=expires):
            self.worker.drop(job)
            self.store.clear(job)
            self.metrics.job("cancelled")
            self.broadcaster.tell(job, StatusChanged("cancelled"))
            return self.get(job)
        if not self._forget(job):
            raise no_such_video(job)
        return None

    def _forget(self, job: str) -> bool:
        """Remove a job that has ended with its files; False if there is none such."""
        if not self.store.forget(job):
            return False
        self.store.clear_result(job)
        if not self.worker.needs(job):  # which clears the rest when the others are whole
            self.store.clear_needed(job)
        return True

    def _tidy(self) -> None:
        """Remove results whose time is over, and the oldest beyond the space that they may take."""
        for job in self.store.expired(time.time()):
            self._forget(job.id)
        if self._keeping.bytes is None:
            return
        done = self.store.with_status("completed")
        space = sum(job.bytes or 0 for job in done)
        for job in done:
            if space <= self._keeping.bytes:
                return
            space -= job.bytes or 0
            self._forget(job.id)


def _fingerprint(asking: Asking) -> str:
    digest = hashlib.sha256(msgspec.json.encode(asking.fields))
    if asking.upload is not None:
        digest.update(asking.upload.read_bytes())
    return digest.hexdigest()
