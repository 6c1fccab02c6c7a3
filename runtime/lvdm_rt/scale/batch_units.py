"""The unit of work: jobs that share one call, made with an open pipeline, and what became of them.

    DIR/.batch/KEY         finished clips of the unit in hand, as in any work directory
    DIR/.batch/KEY.json    which jobs it has, so that an interrupted one is put together again

A `Unit` is small and can be pickled: it names files and holds settings. Knows calls and their
files; nothing of who runs units, or where.
"""

import errno
import hashlib
import json
import logging
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec.structs import replace as settings_with

from lvdm_engines.atomic import read_file, whole_file
from lvdm_engines.errors import (
    BackendError,
    DeviceMemoryError,
    LvdmError,
    OtherRunError,
    SessionError,
    WorkError,
    cause,
)
from lvdm_rt.commands.making import VideoCall, make_videos
from lvdm_rt.long import workdir
from lvdm_rt.long.workdir import holds_clips
from lvdm_rt.pipeline import Pipeline, ProgressCallback
from lvdm_rt.progress import Progress
from lvdm_rt.scale.batch_done import JobRecord, record_of
from lvdm_rt.scale.worklist import BatchJob

_log = logging.getLogger(__name__)

HAND = ".batch"
_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
}


@dataclass(frozen=True)
class Unit:
    """Jobs that are made together; what is unfinished lies in `hand`.

    Those in `kept` are done, and here for the clips alone that were begun together.
    """

    jobs: tuple[BatchJob, ...]
    hand: Path
    kept: frozenset[str] = frozenset()

    @property
    def missing(self) -> tuple[BatchJob, ...]:
        """The jobs that are to be made."""
        return tuple(job for job in self.jobs if job.name not in self.kept)

    @property
    def key(self) -> str:
        """What tells units apart: a digest of their jobs."""
        told = json.dumps([[job.name, job.digest] for job in self.jobs])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def call(self) -> VideoCall:
        """How the jobs are made in one call."""
        return replace(
            self.jobs[0].call,
            names=tuple(name for job in self.jobs for name in job.call.names),
            asked=tuple(settings for job in self.jobs for settings in job.call.asked),
            work=self.hand / self.key,
        )

    def parts(self) -> Iterator["Unit"]:
        """Yield smaller units, if there are any: what is missing alone, or two halves."""
        jobs, middle = self.missing, len(self.jobs) // 2
        parts = [jobs] if self.kept else [jobs[:middle], jobs[middle:]]
        yield from (Unit(part, self.hand) for part in parts if part)

    def begin(self) -> None:
        """Note which jobs are in hand. Raises WorkError."""
        told = [[job.name, job.digest] for job in self.jobs]
        try:
            self.hand.mkdir(exist_ok=True)
            with whole_file(_members(self.hand, self.key)) as file:
                file.write(json.dumps(told).encode())
        except OSError as err:
            raise WorkError(f"{self.hand} cannot be written: {cause(err)}") from err

    def end(self) -> None:
        """Forget what was in hand. Raises WorkError."""
        workdir.remove(self.hand / self.key)
        _members(self.hand, self.key).unlink(missing_ok=True)


def units_of(jobs: Sequence[BatchJob], hand: Path) -> Iterator[Unit]:
    """Yield jobs as units of at most `batch_size`, in the order in which their first ones come.

    Jobs share a unit where they differ in seed, first_video, prompts and name alone.
    """
    alike: dict[VideoCall, list[BatchJob]] = {}
    for job in jobs:
        alike.setdefault(_kind(job.call), []).append(job)
    parts = [
        group[start : start + kind.settings.batch_size]
        for kind, group in alike.items()
        for start in range(0, len(group), kind.settings.batch_size)
    ]
    places = {job.name: place for place, job in enumerate(jobs)}
    for part in sorted(parts, key=lambda part: places[part[0].name]):
        yield Unit(tuple(part), hand)


def _kind(call: VideoCall) -> VideoCall:
    """Return what calls that can be made together have in common."""
    alike = settings_with(call.settings, seed=0, first_video=0, prompts=None)
    return replace(call, names=(), asked=(alike,))


def units_in_hand(hand: Path, jobs: Mapping[str, BatchJob], missing: set[str]) -> Iterator[Unit]:
    """Yield the units that were interrupted and can be gone on with.

    `jobs` are all of the list by name; some of a unit's may be done.
    """
    taken: set[str] = set()
    for file in sorted(hand.glob("*.json")):
        told = _read_members(file)
        same = all(name in jobs and jobs[name].digest == job for name, job in told.items())
        if not same or not told.keys() & missing or told.keys() & taken:
            continue
        unit = Unit(tuple(jobs[name] for name in told), hand, frozenset(told.keys() - missing))
        if unit.key == file.stem and holds_clips(hand / file.stem):
            taken |= told.keys()
            yield unit


def forget_others(hand: Path, jobs: Collection[str], units: Sequence[Unit]) -> None:
    """Remove what was begun for these jobs, by name, otherwise than in units; leave all else.

    Raises WorkError.
    """
    keys = {unit.key for unit in units}
    for file in hand.glob("*.json"):
        if file.stem not in keys and _read_members(file).keys() & set(jobs):
            workdir.remove(hand / file.stem)
            file.unlink(missing_ok=True)
    for folder in hand.glob("*/"):  # left by a worker that was given up
        if not _members(hand, folder.name).exists():
            workdir.remove(folder)


def _members(hand: Path, key: str) -> Path:
    return hand / f"{key}.json"


def _read_members(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(read_file(file)))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def make_unit(
    unit: Unit, pipeline: Pipeline, progress: ProgressCallback | None = None
) -> Generator[JobRecord, None, None]:
    """Make the missing jobs of a unit, and yield what became of each as soon as that is known.

    Where one cannot be made, the others are made without it. Raises LvdmError and OSError for what
    would end every other job as well, such as a full disk.
    """
    started = time.monotonic()
    try:
        unit.begin()
        _make(unit.call, pipeline, progress)
    except (LvdmError, OSError, MemoryError) as err:
        if concerns_all(err):
            raise
        unit.end()
        yield from _apart(unit, pipeline, progress, err, started)
    else:
        unit.end()
        seconds = (time.monotonic() - started) / len(unit.jobs)
        for job in unit.missing:
            yield record_of(
                Path(*job.call.names), line=job.line, job=job.digest, seconds=round(seconds, 3)
            )
    finally:
        if not holds_clips(unit.hand / unit.key):
            _members(unit.hand, unit.key).unlink(missing_ok=True)


def concerns_all(err: BaseException | None) -> bool:
    """Tell whether an error is not one job's reason: the engine has failed, the disk is full."""
    if isinstance(err, SessionError | BackendError):
        return not isinstance(err, DeviceMemoryError)
    while err is not None:
        if getattr(err, "errno", None) in _OF_THE_MACHINE:
            return True
        err = err.__cause__
    return False


def _make(call: VideoCall, pipeline: Pipeline, progress: ProgressCallback | None) -> None:
    try:
        make_videos(call, pipeline, progress)
    except OtherRunError as err:  # made by another version or backend, or in other batches
        _log.info("clips that were finished are made again: %s", err)
        try:
            make_videos(replace(call, restart=True), pipeline, progress)
        except OtherRunError:  # in use by a worker that was given up and does not know it
            make_videos(replace(call, work=None), pipeline, progress)


def _apart(
    unit: Unit,
    pipeline: Pipeline,
    progress: ProgressCallback | None,
    err: Exception,
    started: float,
) -> Generator[JobRecord, None, None]:
    """Make what did not fail with a unit: in parts, down to the job that is the reason."""
    if len(unit.jobs) == 1:
        (job,) = unit.missing
        yield JobRecord(
            status="failed",
            name=job.name,
            line=job.line,
            job=job.digest,
            reason=_reason(err),
            seconds=round(time.monotonic() - started, 3),
        )
        return
    _log.info("%s could not be made together: %s", ", ".join(j.name for j in unit.jobs), err)
    done = len(unit.kept)
    for part in unit.parts():
        yield from make_unit(part, pipeline, _part(progress, done, len(unit.jobs), len(part.jobs)))
        done += len(part.jobs)


def _reason(err: Exception) -> str:
    if isinstance(err, OSError):
        return f"{err.filename}: {cause(err)}"
    return str(err) or "out of memory; lower batch_size"


def _part(
    progress: ProgressCallback | None, done: int, videos: int, own: int
) -> ProgressCallback | None:
    """Return who is told of some videos of a unit, all of which take as long."""
    if progress is None:
        return None

    def tell(now: Progress) -> None:
        steps, frames = now.total_steps // own, now.total_frames // own
        progress(
            Progress(
                done * steps + now.steps,
                videos * steps,
                done * frames + now.frames,
                videos * frames,
            )
        )

    return tell
