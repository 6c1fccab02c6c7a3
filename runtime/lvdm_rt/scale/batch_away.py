"""Units of a batch that workers of a cluster make, each with a pipeline of its own.

A worker that sees the folder of the batch writes there, and goes on with the clips that a lost one
has left. Any other makes videos in a folder of its own and sends them back as whole files, which
are put in place here. Knows units and crews; nothing of Ray.
"""

import json
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from msgspec.structs import replace as record_with

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import Bundle, builtin_bundles
from lvdm_engines.errors import BundleError, LvdmError, WorkError, cause
from lvdm_rt.commands.outputs import check_free
from lvdm_rt.pipeline import Pipeline
from lvdm_rt.request import model_sha256
from lvdm_rt.scale.batch import BatchAsk, Workers
from lvdm_rt.scale.batch_done import JobRecord
from lvdm_rt.scale.batch_tally import Tally
from lvdm_rt.scale.batch_units import Unit, concerns_all, make_unit
from lvdm_rt.scale.cluster import ClusterOptions, connect
from lvdm_rt.scale.crew import Share
from lvdm_rt.scale.worklist import BatchJob
from lvdm_rt.video import is_finished
from lvdm_rt.video.publishing import place_video, read_video


@dataclass(frozen=True)
class AwayUnit:
    """A unit as it is sent to a worker: with its model, and the file by which a folder is known."""

    unit: Unit
    model: str
    mark: Path | None

    def in_place(self) -> bool:
        """Tell whether this process sees the folder of the batch."""
        return self.mark is not None and self.mark.exists()


class Made(NamedTuple):
    """What became of a job, and its files where they were made elsewhere."""

    record: JobRecord
    files: dict[str, bytes] | None


def on_cluster(ask: BatchAsk, options: ClusterOptions, *, send_back: bool = False) -> Workers:
    """Return workers that let a cluster make units, several at once.

    With `send_back` files come back from each worker, whether it sees the folder or not.
    """

    def workers(
        units: Sequence[Unit], bundle: Bundle, tally: Tally
    ) -> Generator[JobRecord, None, None]:
        model = model_sha256(bundle.manifest)
        with (
            _marked(units[0].hand) as mark,
            connect(options, partial(_opening, _anywhere(ask.bundle), ask)) as crew,
        ):
            sent = (AwayUnit(unit, model, None if send_back else mark) for unit in units)
            for outcome in crew.map(make_away, sent):
                if outcome.error is not None:
                    raise outcome.error
                unit = outcome.unit.unit
                for job, made in zip(unit.missing, outcome.result, strict=True):
                    yield made.record if made.files is None else _placed(job, made)
                tally.finish(unit)

    return workers


def make_away(pipeline: Pipeline, away: AwayUnit) -> list[Made]:
    """Make a unit where this process is; returns what became of what was missing, in its order.

    Raises BundleError for another model than was asked for, and as `make_unit` does.
    """
    if model_sha256(pipeline.manifest) != away.model:
        raise BundleError(
            f"a worker has another {pipeline.manifest.name} than this machine; give all of them "
            "the same bundle"
        )
    unit = away.unit
    if away.in_place():
        made = [Made(record, None) for record in make_unit(unit, pipeline)]
    else:
        with TemporaryDirectory(prefix="lvdm-rt-") as folder:
            here = _moved(unit, Path(folder))
            made = [_with_files(record, Path(folder)) for record in make_unit(here, pipeline)]
    by_name = {one.record.name: one for one in made}
    return [by_name[job.name] for job in unit.missing]


def _with_files(record: JobRecord, folder: Path) -> Made:
    if record.status == "done" and record.name is not None:
        return Made(record, read_video(folder / record.name))
    return Made(record, None)


def _moved(unit: Unit, folder: Path) -> Unit:
    """Return what is missing of a unit, with its files in another folder."""
    jobs = tuple(
        replace(job, call=replace(job.call, names=(str(folder / job.name),)))
        for job in unit.missing
    )
    return Unit(jobs, folder / unit.hand.name)


def _placed(job: BatchJob, made: Made) -> JobRecord:
    """Give a video that was sent back its name; what keeps it from that is the job's failure."""
    path, files = Path(*job.call.names), made.files or {}
    settings = json.loads(files[""])
    del settings["file"]
    try:
        if not (path.exists() and is_finished(path, settings)):
            check_free(path, settings, force=job.call.force)
            place_video(path, files, replace=job.call.force)
    except LvdmError as err:
        if concerns_all(err):
            raise
        failed = {"status": "failed", "reason": str(err), "bytes": None, "sha256": None}
        return record_with(made.record, **failed)
    return made.record


@contextmanager
def _marked(hand: Path) -> Iterator[Path]:
    """Give a file by which workers know that they see this folder. Raises WorkError."""
    mark = hand / f"shared-{uuid.uuid4().hex}"
    try:
        hand.mkdir(exist_ok=True)
        for left in hand.glob("shared-*"):  # by a killed process
            left.unlink()
        mark.touch()
    except OSError as err:
        raise WorkError(f"{hand} cannot be written: {cause(err)}") from err
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _anywhere(bundle: str) -> str:
    """Return a bundle's name as another process finds it."""
    if bundle in builtin_bundles() or not Path(bundle).is_dir():
        return bundle
    return str(Path(bundle).absolute())


def _opening(bundle: str, ask: BatchAsk, share: Share) -> Callable[[], Pipeline]:
    """Return how a worker opens its pipeline, on the cores or the GPU that it sees as its own."""
    session = ask.session or SessionOptions()
    if share.gpus:
        session = replace(session, device=0)
    elif session.threads is None:
        session = replace(session, threads=share.cpus)
    return partial(Pipeline.open, bundle, ask.backend, session)
