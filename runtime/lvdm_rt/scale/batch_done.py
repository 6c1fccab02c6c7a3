"""What is done already: by the files themselves, by what stands beside them, and by a record.

    DIR/batch.jsonl    one line a job: name, line, digest of the job, done or failed, why, its file

A line is added as soon as a job ends; a torn last one, of a killed run, is left out. Knows settings
and files; nothing of pipelines.
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal, Self

import msgspec

from lvdm_engines.atomic import read_file, sync, whole_file
from lvdm_engines.errors import WorkError, cause, quoted
from lvdm_engines.manifest import Manifest
from lvdm_rt.commands.making import VideoCall, as_json
from lvdm_rt.request import model_sha256
from lvdm_rt.video import read_sidecar
from lvdm_rt.video.sidecar import file_facts

_log = logging.getLogger(__name__)

RECORD = "batch.jsonl"
# of a sidecar: what computed it and how it was grouped, which no job asks for
_NOT_ASKED = {"lvdm_rt", "bundle", "arithmetic", "batch_size", "videos", "video", "file"}
_OF_CONDITION = {"condition", "condition_sha256", "joined_frames", "joined_sha256"}


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a job: its file, or why there is none.

    `job` is its digest, `seconds` its share of the call that made it.
    """

    status: Literal["done", "failed"]
    name: str | None = None
    line: int | None = None
    job: str | None = None
    reason: str | None = None
    seconds: float | None = None
    bytes: int | None = None
    sha256: str | None = None


def digest_of(call: VideoCall, manifest: Manifest, condition: str | None) -> str:
    """Return what tells jobs apart: all that a video depends on, however it is made.

    `condition` is the sha256 of the file that is continued.
    """
    asked = [_asked(call, manifest), condition, call.join]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def is_done(job: str, call: VideoCall, manifest: Manifest, record: JobRecord | None) -> bool:
    """Tell whether the one video of a call is there, whole, and made of this job.

    Where a video was continued, `record` must say so: its sidecar tells pictures, not the file.
    """
    path = Path(call.names[0])
    told = read_sidecar(path)
    if told is None or not path.exists() or difference(call, manifest) is not None:
        return False
    if call.condition is not None and (record is None or record.job != job):
        return False
    try:
        return bool(told.get("file") == file_facts(path))
    except OSError:  # which is the reason of this job alone, and told once it is to be made
        return False


def difference(call: VideoCall, manifest: Manifest) -> str | None:
    """Say in what a video's sidecar differs from what a call asks for, None if in nothing."""
    told = read_sidecar(Path(call.names[0])) or {}
    before = {k: v for k, v in told.items() if k not in _NOT_ASKED | _OF_CONDITION}
    now = _asked(call, manifest)
    before |= {"condition": "condition_sha256" in told, "join": "joined_frames" in told}
    now |= {"condition": call.condition is not None, "join": call.join}
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            return f"{name} {quoted(before.get(name))}, now it is {quoted(now.get(name))}"
    return None


def _asked(call: VideoCall, manifest: Manifest) -> dict[str, object]:
    """Return what a call asks for as its sidecar will tell it, but for the condition."""
    told = {"model_sha256": model_sha256(manifest), **as_json(call.settings)}
    if call.crf is not None:
        told["crf"] = call.crf
    return {name: value for name, value in told.items() if name not in _NOT_ASKED}


def record_of(path: Path, **facts: object) -> JobRecord:
    """Return the record of a video that is done. Raises WorkError if its sidecar has gone."""
    file = (read_sidecar(path) or {}).get("file")
    if not isinstance(file, dict):
        raise WorkError(f"{path} was written, but its sidecar has gone; run the batch again")
    return msgspec.convert({**facts, **file, "status": "done", "name": path.name}, JobRecord)


class BatchRecord:
    """The record of a folder; open while jobs are made."""

    def __init__(self, folder: Path) -> None:
        """Read what there is. Raises WorkError if it cannot be read."""
        self._path = folder / RECORD
        self._file: BinaryIO | None = None
        try:
            lines = read_file(self._path).splitlines() if self._path.exists() else []
        except OSError as err:
            raise WorkError(f"{self._path} cannot be read: {cause(err)}") from err
        self.lines: list[JobRecord] = []
        for number, line in enumerate(lines, 1):
            try:
                self.lines.append(msgspec.json.decode(line, type=JobRecord))
            except (msgspec.DecodeError, ValueError, RecursionError):
                _log.warning("%s, line %d cannot be read and is left out", self._path, number)
        by_fate = sorted(self.lines, key=lambda line: line.status == "done")  # which come last
        self.by_name = {line.name: line for line in by_fate if line.name}

    def begin(self, kept: Iterable[JobRecord]) -> Self:
        """Keep these lines alone, and take more. Raises WorkError."""
        try:
            with whole_file(self._path) as file:
                file.writelines(_line(record) for record in kept)
            self._file = self._path.open("ab")
        except OSError as err:
            raise self._unwritable(err) from err
        return self

    def add(self, record: JobRecord) -> None:
        """Add a line, in one piece. Raises WorkError."""
        if self._file is None:
            raise WorkError(f"{self._path} is not open")
        try:
            self._file.write(_line(record))
            self._file.flush()
            sync(self._path)
        except OSError as err:
            raise self._unwritable(err) from err

    def _unwritable(self, err: OSError) -> WorkError:
        return WorkError(f"{self._path} cannot be written: {cause(err)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a line that could not be written, which was told
                self._file.close()


def _line(record: JobRecord) -> bytes:
    return msgspec.json.encode(record) + b"\n"
