"""The jobs of a server in an SQLite file, and the places of what belongs to them in its folder.

    jobs.sqlite3              every job and its state; a change is on the disk before it is told
    results/ID.*              whole videos with their settings, and pictures of them
    work/ID/                  finished clips of a job that is being made
    conditions/ID.npy         the frames that a job continues

Every change of state is one statement that says from which states it may happen, so that of two
threads which want to end a job one does. Knows nothing of models or HTTP.
"""

import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from lvdm_engines.atomic import remove
from lvdm_engines.errors import WorkError
from lvdm_rt.options import Settings
from lvdm_rt.serve.jobs import ENDED, JobError, Status, VideoJob

_VERSION = 1
_FOLDERS = ("results", "work", "conditions")
_OURS = re.compile(r"\.?(video_[0-9a-f]{32})\..*|(video_[0-9a-f]{32})")
_COLUMNS = {
    "number": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "id": "TEXT NOT NULL UNIQUE",
    "status": "TEXT NOT NULL",
    "model": "TEXT NOT NULL",
    "model_sha256": "TEXT NOT NULL",
    "size": "TEXT NOT NULL",
    "settings": "TEXT NOT NULL",
    "condition": "TEXT",
    "client": "TEXT NOT NULL",
    "key": "TEXT",
    "asked": "TEXT NOT NULL",
    "batch": "INTEGER",
    "created": "REAL NOT NULL",
    "started": "REAL",
    "first_frame": "REAL",
    "ended": "REAL",
    "expires": "REAL",
    "bytes": "INTEGER",
    "error": "TEXT",
}


class JobStore:
    """Jobs by id, in one folder. Its methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """Open the jobs of a folder, or begin there. Raises WorkError."""
        self.folder = folder
        self._lock = threading.RLock()
        try:
            for name in _FOLDERS:
                (folder / name).mkdir(exist_ok=True)
            self._db = sqlite3.connect(
                folder / "jobs.sqlite3", isolation_level=None, check_same_thread=False
            )
            self._db.row_factory = sqlite3.Row
            self._prepare()
        except (OSError, sqlite3.Error) as err:
            raise WorkError(
                f"{folder} cannot hold jobs: {err}; choose another --folder, or mend it"
            ) from err

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"got version {version} of its jobs, expected {_VERSION}")
        columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
        self._db.executescript(
            f"CREATE TABLE IF NOT EXISTS job ({columns});"
            "CREATE INDEX IF NOT EXISTS by_status ON job (status);"
            "CREATE UNIQUE INDEX IF NOT EXISTS by_key ON job (client, key);"
            f"PRAGMA user_version={_VERSION}"
        )

    def close(self) -> None:
        """Close the file; what comes later fails."""
        with self._lock:
            self._db.close()

    def result(self, job: str) -> Path:
        """Return where the video of a job is, or will be."""
        return self.folder / "results" / f"{job}.mp4"

    def picture(self, job: str, variant: str) -> Path:
        """Return where a picture of a video is, once somebody has asked for it."""
        return self.folder / "results" / f"{job}.{variant}.png"

    def work(self, job: str) -> Path:
        """Return where finished clips of a job are."""
        return self.folder / "work" / job

    def condition(self, job: str) -> Path:
        """Return where the frames are that a job continues."""
        return self.folder / "conditions" / f"{job}.npy"

    def add(self, job: VideoJob) -> VideoJob:
        """Keep a new job and return it with its number."""
        told = _as_row(job)
        del told["number"]
        names = ", ".join(told)
        holes = ", ".join("?" * len(told))
        with self._lock:
            done = self._db.execute(
                f"INSERT INTO job ({names}) VALUES ({holes})",  # noqa: S608 - names of ours
                list(told.values()),
            )
        return msgspec.structs.replace(job, number=done.lastrowid)

    def get(self, job: str) -> VideoJob | None:
        """Return a job, None if there is none of that id."""
        return next(self._jobs("WHERE id = ?", job), None)

    def by_key(self, client: str, key: str) -> VideoJob | None:
        """Return the job that a client has asked for with this key."""
        return next(self._jobs("WHERE client = ? AND key = ?", client, key), None)

    def page(self, after: str | None, limit: int, *, newest: bool) -> list[VideoJob]:
        """Return up to `limit` jobs by age, those that come after the one with the id `after`."""
        beyond, order = ("<", "DESC") if newest else (">", "ASC")
        than = f"number {beyond} (SELECT number FROM job WHERE id = ?)"  # noqa: S608 - no values
        where = f"WHERE {than}" if after else ""
        told = [after] if after else []
        return list(self._jobs(f"{where} ORDER BY number {order} LIMIT ?", *told, limit))

    def with_status(self, *statuses: Status) -> list[VideoJob]:
        """Return all jobs in one of these states, the oldest first."""
        holes = ", ".join("?" * len(statuses))
        return list(self._jobs(f"WHERE status IN ({holes}) ORDER BY number", *statuses))

    def batch(self, number: int) -> list[VideoJob]:
        """Return the jobs of a batch whose videos are wanted, the oldest first."""
        wanted = "WHERE batch = ? AND status IN ('in_progress', 'completed') ORDER BY number"
        return list(self._jobs(wanted, number))

    def count(self, *statuses: Status, client: str | None = None) -> int:
        """Return how many jobs are in one of these states, of all or one client."""
        holes = ", ".join("?" * len(statuses))
        query = f"SELECT count(*) FROM job WHERE status IN ({holes})"  # noqa: S608 - no values
        told = list[str](statuses)
        if client is not None:
            query, told = f"{query} AND client = ?", [*told, client]
        with self._lock:
            return int(self._db.execute(query, told).fetchone()[0])

    def begin(self, jobs: Iterable[VideoJob], batch: int, now: float) -> None:
        """Note that jobs are made together from now on, those that nobody has ended."""
        with self._lock:
            self._db.executemany(
                "UPDATE job SET status = 'in_progress', batch = ?, started = coalesce(started, ?) "
                "WHERE id = ? AND status IN ('queued', 'in_progress')",
                [(batch, now, job.id) for job in jobs],
            )

    def show(self, job: str, now: float) -> bool:
        """Note when the first frames of a job were there; False if that was noted before."""
        with self._lock:
            done = self._db.execute(
                "UPDATE job SET first_frame = ? WHERE id = ? AND first_frame IS NULL", (now, job)
            )
        return done.rowcount == 1

    def end(
        self,
        job: str,
        status: Status,
        now: float,
        *,
        error: JobError | None = None,
        size: int | None = None,
        expires: float | None = None,
    ) -> bool:
        """Note how a job ended; False if it had ended before."""
        told = None if error is None else msgspec.json.encode(error).decode()
        with self._lock:
            done = self._db.execute(
                "UPDATE job SET status = ?, ended = ?, error = ?, bytes = ?, expires = ? "
                "WHERE id = ? AND status IN ('queued', 'in_progress')",
                (status, now, told, size, expires, job),
            )
        return done.rowcount == 1

    def forget(self, job: str) -> bool:
        """Know nothing more of a job that has ended; False if there is none such.

        Its files are cleared by whoever knows that nobody needs them.
        """
        with self._lock:
            done = self._db.execute(
                "DELETE FROM job WHERE id = ? AND status IN (?, ?, ?)", (job, *ENDED)
            )
        return done.rowcount == 1

    def expired(self, now: float) -> list[VideoJob]:
        """Return the jobs whose time is over."""
        return list(self._jobs("WHERE expires <= ?", now))

    def clear(self, job: str) -> None:
        """Remove the result of a job, and what it needed while it was made."""
        self.clear_result(job)
        self.clear_needed(job)

    def clear_result(self, job: str) -> None:
        """Remove the video of a job, and pictures of it."""
        for path in self.result(job).parent.glob(f"{job}.*"):
            remove(path)

    def clear_needed(self, job: str) -> None:
        """Remove what a job needed while it was made."""
        self.clear_work(job)
        remove(self.condition(job))

    def clear_work(self, job: str) -> None:
        """Remove the finished clips of a job."""
        remove(self.work(job))

    def sweep(self) -> None:
        """Remove the files of jobs that are gone, which a killed process can leave."""
        jobs = {job.id: job for job in self._jobs("")}
        begun = {job.batch for job in jobs.values() if job.status == "in_progress"}
        for name in _FOLDERS:
            for path in list((self.folder / name).iterdir()):
                ours = _OURS.fullmatch(path.name)
                if ours is None:
                    continue
                job = jobs.get(ours[1] or ours[2])
                needed = job is not None and (
                    not job.has_ended
                    or (job.status == "completed" and (name == "results" or job.batch in begun))
                )
                if not needed or path.name.endswith(".partial"):
                    remove(path)

    def _jobs(self, where: str, *told: object) -> Iterator[VideoJob]:
        with self._lock:
            rows = self._db.execute(f"SELECT * FROM job {where}", told).fetchall()  # noqa: S608
        return map(_as_job, rows)


def _as_row(job: VideoJob) -> dict[str, Any]:
    told = msgspec.structs.asdict(job)
    told["settings"] = msgspec.json.encode(job.settings).decode()
    told["error"] = None if job.error is None else msgspec.json.encode(job.error).decode()
    return told


def _as_job(row: sqlite3.Row) -> VideoJob:
    told = dict(row)
    told["settings"] = msgspec.json.decode(told["settings"], type=Settings)
    if told["error"] is not None:
        told["error"] = msgspec.json.decode(told["error"], type=JobError)
    return VideoJob(**told)
