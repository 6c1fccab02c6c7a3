"""The file of one job while it grows, and the settings that lie beside it."""

import json
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lvdm_rt.pipeline import Chunk, Pipeline
from lvdm_rt.serve.jobs import VideoJob
from lvdm_rt.serve.live_film import LiveFilm
from lvdm_rt.video import VideoSpec, VideoWriter, is_finished, open_writer


class Film:
    """One video on its way into a file, which has its name once it is whole.

    Frames that come again, of a run that goes on with finished clips, are left out.
    """

    def __init__(self, job: VideoJob, path: Path, pipeline: Pipeline) -> None:
        self.job, self._path = job, path
        self._told = sidecar_of(job, pipeline)
        self._size = pipeline.manifest.model.frame_size
        self._fps = frame_rate(job)
        self._writer: VideoWriter | None = None
        self._live = LiveFilm(path, self._size, self._fps)

    @property
    def count(self) -> int:
        """Frames that were written."""
        return 0 if self._writer is None else self._writer.count

    def is_whole(self) -> bool:
        """Whether all frames were written."""
        return self.count == self.job.settings.frames

    def was_finished(self) -> bool:
        """Tell whether the file is there already, made by a server that was killed just then."""
        return is_finished(self._path, self._told)

    def add(self, chunk: Chunk) -> NDArray[np.uint8]:
        """Append what is new of a chunk and return it. Raises VideoError."""
        new = chunk.frames[max(0, self.count - chunk.start) :]
        if len(new):
            self._live.add(new)
            if self._writer is None:
                self._writer = open_writer(str(self._path), self._spec(), replace=True)
            self._writer.write(new)
        return new

    def _spec(self) -> VideoSpec:
        return VideoSpec(
            frames=self.job.settings.frames,
            size=self._size,
            fps=self._fps,
            settings=json.dumps(self._told),
        )

    def close(self) -> int:
        """Give the file its name and return its size in bytes. Raises VideoError."""
        self._live.end()
        if self._writer is not None:
            self._writer.close()
        return self._path.stat().st_size

    def abort(self) -> None:
        """Remove what is not whole, and live pictures; harmless to the video after `close`."""
        self._live.remove()
        if self._writer is not None:
            self._writer.abort()


def frame_rate(job: VideoJob) -> Fraction:
    """Return the frames per second of a video as files have them."""
    return Fraction(job.settings.fps).limit_denominator(1001)


def sidecar_of(job: VideoJob, pipeline: Pipeline) -> dict[str, Any]:
    """Return what lies beside a video, with which `lvdm-rt generate --from` repeats it."""
    told = {
        "lvdm_rt": version("lvdm-rt"),
        "bundle": job.model,
        "model_sha256": job.model_sha256,
        "arithmetic": pipeline.arithmetic,
        **json.loads(msgspec.json.encode(job.settings)),
        "video": job.settings.first_video,
    }
    if job.condition is not None:
        told |= {"condition": "input_reference", "condition_sha256": job.condition}
    return told
