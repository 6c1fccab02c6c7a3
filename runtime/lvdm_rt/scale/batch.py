"""A batch: all jobs of a list that are not done yet, made with one pipeline or by others.

Knows lists, records and units; nothing of flags, terminals, or how a unit is made.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from lvdm_engines import lock
from lvdm_engines.atomic import is_taken
from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import Bundle, load_bundle
from lvdm_engines.errors import OptionsError, OtherRunError, WorkError, cause
from lvdm_engines.manifest import Manifest
from lvdm_rt.pipeline import Pipeline
from lvdm_rt.progress import ProgressCallback
from lvdm_rt.scale.batch_done import BatchRecord, JobRecord, difference, is_done, record_of
from lvdm_rt.scale.batch_tally import Tally
from lvdm_rt.scale.batch_units import HAND, Unit, forget_others, make_unit, units_in_hand, units_of
from lvdm_rt.scale.worklist import BadJob, BatchJob, ForAll, read_jobs
from lvdm_rt.video import read_sidecar

Workers = Callable[[Sequence[Unit], Bundle, Tally], Generator[JobRecord, None, None]]
"""Who makes units, and yields what became of every job."""


@dataclass(frozen=True, kw_only=True)
class BatchAsk:
    """A list of jobs or seeds, what holds for all of them, and with what they are made."""

    source: Path | range
    common: ForAll
    bundle: str = "sky-tiny"
    backend: str = "auto"
    session: SessionOptions | None = None


@dataclass(frozen=True)
class BatchPlan:
    """What there is to do: records of what is done or cannot be, and units of what is missing.

    `others` are records of videos that this list does not ask for.
    """

    done: list[JobRecord]
    failed: list[JobRecord]
    units: list[Unit]
    others: list[JobRecord]

    @property
    def missing(self) -> int:
        """How many jobs are to be made."""
        return sum(len(unit.missing) for unit in self.units)

    @property
    def names(self) -> set[str]:
        """The names of all jobs."""
        begun = {job.name for unit in self.units for job in unit.jobs}
        return begun | {line.name for line in (*self.done, *self.failed) if line.name}

    @property
    def jobs(self) -> int:
        """How many jobs the list has."""
        return len(self.done) + len(self.failed) + self.missing


@contextmanager
def planned(ask: BatchAsk) -> Iterator["Batch"]:
    """Give the batch that is asked for, with its folder, which nobody else may work on meanwhile.

    Raises OtherRunError if somebody does, LvdmError for a list or a bundle that cannot be read.
    """
    out = ask.common.out
    try:
        holder = lock.made_and_locked(out)
    except BlockingIOError as err:
        raise OtherRunError(
            f"{out} is in use by another batch; wait for it, or choose another -o"
        ) from err
    except OSError as err:
        raise WorkError(f"{out} cannot be written: {cause(err)}") from err
    try:
        bundle = load_bundle(ask.bundle)
        with BatchRecord(out) as record:
            yield Batch(ask, bundle, record, _plan(ask, bundle.manifest, record))
    finally:
        with suppress(OSError):  # it holds what can be gone on with
            (out / HAND).rmdir()
        lock.release(holder, out)  # which is removed if nothing is in it


class Batch:
    """A list that was read and compared with what is done."""

    def __init__(self, ask: BatchAsk, bundle: Bundle, record: BatchRecord, plan: BatchPlan) -> None:
        self.plan = plan
        self._ask, self._bundle, self._record = ask, bundle, record

    def run(
        self, progress: ProgressCallback | None = None, workers: Workers | None = None
    ) -> Generator[JobRecord, None, None]:
        """Make what is missing; yields what becomes of each job, once that is in the record.

        Raises LvdmError for what no job is the reason of; what is done is kept.
        """
        plan = self.plan
        self._record.begin([*plan.others, *plan.done, *plan.failed])
        forget_others(self._ask.common.out / HAND, plan.names, plan.units)
        if not plan.units:
            return
        tally = Tally(plan.units, self._bundle.manifest, progress)
        records = (workers or self._here)(plan.units, self._bundle, tally)
        for record in records:
            self._record.add(record)
            yield record

    def _here(
        self, units: Sequence[Unit], bundle: Bundle, tally: Tally
    ) -> Generator[JobRecord, None, None]:
        with Pipeline.open(bundle, self._ask.backend, self._ask.session) as pipeline:
            for unit in units:
                with closing(make_unit(unit, pipeline, tally.within(unit))) as records:
                    yield from records
                tally.finish(unit)


def _plan(ask: BatchAsk, manifest: Manifest, record: BatchRecord) -> BatchPlan:
    done: list[JobRecord] = []
    failed: list[JobRecord] = []
    refused: list[JobRecord] = []
    missing: dict[str, BatchJob] = {}
    jobs: dict[str, BatchJob] = {}
    for job in read_jobs(ask.source, ask.common, manifest):
        if isinstance(job, BadJob):
            failed.append(_failed(job))
            continue
        jobs[job.name] = job
        before = record.by_name.get(job.name)
        if is_done(job.digest, job.call, manifest, before):
            done.append(_kept(job, before))
        elif (reason := _in_the_way(job, manifest, before)) is not None:
            failed.append(_failed(BadJob(job.line, job.name, reason)))
            if before is not None and before.status == "done":
                refused.append(before)  # which tells of what the video is
        else:
            missing[job.name] = job
    if not jobs:
        _refuse_nothing(ask, failed)
    hand = ask.common.out / HAND
    units = list(units_in_hand(hand, jobs, set(missing)))
    begun = {job.name for unit in units for job in unit.jobs}
    units += units_of([job for job in missing.values() if job.name not in begun], hand)
    known = {*jobs, *(job.name for job in failed)}
    others = [line for line in record.lines if line.name and line.name not in known]
    return BatchPlan(done, failed, units, [*others, *refused])


def _kept(job: BatchJob, before: JobRecord | None) -> JobRecord:
    """Return the record of a job that is done, as it is known, or anew where that has gone."""
    now = record_of(Path(*job.call.names), line=job.line, job=job.digest)
    same = before is not None and (before.job, before.sha256) == (now.job, now.sha256)
    return replace(now, seconds=before.seconds) if before is not None and same else now


def _in_the_way(job: BatchJob, manifest: Manifest, before: JobRecord | None) -> str | None:
    """Say why a job must not be made where something lies already."""
    path = Path(*job.call.names)
    if job.call.force or not is_taken(path):
        return None
    if read_sidecar(path) is None:
        return "it exists and has no settings beside it; move it away, or --force replaces it"
    if (what := difference(job.call, manifest)) is not None:
        return f"it exists with {what}; give the job another name, or --force replaces it"
    if before is not None and before.status == "done" and before.job != job.digest:
        return (
            "it exists and continues what its condition was before; give the job another name, or "
            "--force replaces it"
        )
    return None


def _failed(job: BadJob) -> JobRecord:
    return JobRecord(status="failed", name=job.name, line=job.line, reason=job.reason)


def _refuse_nothing(ask: BatchAsk, failed: Sequence[JobRecord]) -> None:
    """Raise OptionsError for a list of which nothing can be made, if one sentence says why."""
    if not failed:
        raise OptionsError(f"{ask.source}: holds no job, expected one in each line")
    reasons = {job.reason for job in failed}
    if len(reasons) == 1:
        raise OptionsError(f"none of {len(failed)} jobs can be made: {reasons.pop()}")
