"""Counters of one server, in a registry of its own, as Prometheus reads them."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from lvdm_rt.serve.jobs import Status

_JOB = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400)
_STEP = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """What is counted; times are seconds."""

    def __init__(self, queued: Callable[[], int]) -> None:
        """Begin at zero; `queued` tells how many jobs wait."""
        disable_created_metrics()  # type: ignore[no-untyped-call] # which nobody asked for
        own = self._registry = CollectorRegistry()
        self._jobs = Counter("lvdm_jobs", "Jobs that came into a state.", ["status"], registry=own)
        self._queue = Gauge("lvdm_queue_jobs", "Jobs that wait.", registry=own)
        self._queue.set_function(queued)
        self._job = Histogram(
            "lvdm_job_seconds", "From request to whole file.", buckets=_JOB, registry=own
        )
        self._first = Histogram(
            "lvdm_time_to_first_frame_seconds",
            "From request to first frames.",
            buckets=_JOB,
            registry=own,
        )
        self._step = Histogram(
            "lvdm_step_seconds", "One network call.", ["graph"], buckets=_STEP, registry=own
        )
        self._frames = Counter("lvdm_frames", "Frames that were made.", registry=own)

    def job(self, status: Status) -> None:
        """Count a job that came into a state."""
        self._jobs.labels(status).inc()

    def completed(self, seconds: float) -> None:
        """Count a whole file, so long after it was asked for."""
        self._job.observe(seconds)

    def first_frame(self, seconds: float) -> None:
        """Count first frames, so long after they were asked for."""
        self._first.observe(seconds)

    def step(self, graph: str, seconds: float) -> None:
        """Count a network call."""
        self._step.labels(graph).observe(seconds)

    def frames(self, count: int) -> None:
        """Count frames."""
        self._frames.inc(count)

    def text(self) -> bytes:
        """Return all of it in the text format 0.0.4."""
        return generate_latest(self._registry)
