"""What the server keeps of a job, and in which states it can be; knows no HTTP and no SQL."""

from typing import Literal

import msgspec

from lvdm_rt.options import Settings

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
ENDED: tuple[Status, ...] = ("completed", "failed", "cancelled")


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed, in words that any client may read."""

    code: str
    message: str


class VideoJob(msgspec.Struct, frozen=True, kw_only=True):
    """One video that somebody asked for; times are seconds since 1970.

    `number` counts up with each job. `batch` is the number of the first job of those that are made
    together. `condition` is the sha256 of the frames that it continues, which lie in a file of
    their own until it has ended. `key` is the client's own name for its request, `asked` the sha256
    of what was asked.
    """

    id: str
    number: int = 0
    status: Status = "queued"
    model: str
    model_sha256: str
    size: str
    settings: Settings
    condition: str | None = None
    client: str = ""
    key: str | None = None
    asked: str = ""
    batch: int | None = None
    created: float
    started: float | None = None
    first_frame: float | None = None
    ended: float | None = None
    expires: float | None = None
    bytes: int | None = None
    error: JobError | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in ENDED
