"""How much anybody may ask of a server; knows no HTTP."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServeLimits:
    """What one request and one client may take; see the options of `lvdm-rt serve`."""

    body: int = 64 << 20  # bytes of a request with an uploaded video
    fields: int = 1 << 20  # bytes of one without
    body_seconds: float = 60.0  # until it has come
    frames: int = 4096  # of one video
    queue: int = 64  # jobs that wait
    client_jobs: int = 16  # of one address, that wait or are being made
    upload_pixels: int = 1 << 24  # of each picture of an uploaded video
    upload_seconds: int = 60  # of processor time to read one
    upload_memory: int = 4 << 30  # bytes of addresses to read one
    uploads: int = 2  # that are read at once
    connections: int = 512
