"""One generation job from options to whole video files; knows nothing of flags or terminals."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import OptionsError
from lvdm_rt.long import workdir
from lvdm_rt.long.workdir import work_path
from lvdm_rt.options import GenerateOptions, Settings
from lvdm_rt.pipeline import Chunk, Pipeline, Progress
from lvdm_rt.request import frames_sha256, model_sha256
from lvdm_rt.video import (
    ReadSpec,
    VideoSpec,
    VideoWriter,
    check_output,
    open_writer,
    read_last_frames,
    sidecar_path,
)

Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class GenerateJob:
    """What to generate, with what, and where it goes (see `output_kind` for `out`)."""

    out: str
    options: GenerateOptions
    bundle: str = "sky-tiny"
    backend: str = "auto"
    condition: Path | None = None
    prompt: str | None = None
    resume: bool = False


@dataclass(frozen=True)
class Result:
    """What was written, in the order of the videos, by which backend and with what settings."""

    outputs: tuple[str, ...]
    backend: str
    settings: dict[str, Any]


def generate(
    job: GenerateJob,
    progress: Callable[[Progress], None] | None = None,
    stdout: BinaryIO | None = None,
) -> Result:
    """Generate the videos of `job`, each written whole or not at all.

    What is finished stays in `work_path(job.out)` until everything is written, so that a job
    that was interrupted continues with `resume`. Raises LvdmError.
    """
    names = output_names(job.out, job.options.videos)
    work = work_path(job.out)
    with Pipeline.open(job.bundle, job.backend) as pipeline:
        _check_prompt(job, pipeline)
        settings = pipeline.settings(job.options)
        condition = _condition(job, pipeline, settings)
        facts = _facts(job, pipeline, settings, condition)
        outputs = _Outputs(names, facts, stdout, skip_done=job.resume)
        outputs.check()
        backend = pipeline.backend
        stream = pipeline.stream_videos(
            settings,
            condition=condition,
            work=work,
            resume=job.resume,
            progress=progress,
        )
        with closing(stream), outputs:
            for chunk in stream:
                outputs.write(chunk)
    if work is not None:
        workdir.remove(work)
    return Result(tuple(names), backend, msgspec.to_builtins(settings))


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What all videos of a job have in common."""

    frames: int
    size: tuple[int, int]
    fps: Fraction
    settings: dict[str, Any]


def _facts(
    job: GenerateJob, pipeline: Pipeline, settings: Settings, condition: Frames | None
) -> _Facts:
    """Describe the job, names and contents: `--resume` tells finished videos by it."""
    described = {
        "lvdm_rt": version("lvdm-rt"),
        "bundle": pipeline.manifest.name,
        "model_sha256": model_sha256(pipeline.manifest),
        **msgspec.to_builtins(settings),
    }
    if job.condition is not None and condition is not None:
        described["condition"] = job.condition.name
        described["condition_sha256"] = frames_sha256(condition)
    return _Facts(
        frames=settings.frames,
        size=pipeline.manifest.model.frame_size,
        fps=Fraction(settings.fps).limit_denominator(1001),
        settings=described,
    )


def _check_prompt(job: GenerateJob, pipeline: Pipeline) -> None:
    """Refuse text for a model that reads none, and the other way round."""
    name, reads_text = pipeline.manifest.name, pipeline.manifest.model.context is not None
    if job.prompt is not None and not reads_text:
        raise OptionsError(f"got a prompt, but {name} was not trained with text; leave it out")
    if reads_text:
        raise OptionsError(
            f"{name} needs its text encoder, which this version cannot feed from a prompt;"
            " choose a bundle without context"
        )


def _condition(job: GenerateJob, pipeline: Pipeline, settings: Settings) -> Frames | None:
    if job.condition is None:
        return None
    manifest = pipeline.manifest
    fps = Fraction(manifest.defaults.fps).limit_denominator(1001)
    spec = ReadSpec(size=manifest.model.frame_size, fps=fps)
    return read_last_frames(job.condition, spec, pipeline.condition_frames(settings))


@dataclass
class _Outputs:
    """The writers of the videos in flight. Leaving it early removes what is not whole."""

    names: list[str]
    facts: _Facts
    stdout: BinaryIO | None
    skip_done: bool
    _open: dict[int, VideoWriter | None] = field(default_factory=dict)
    _counts: dict[int, int] = field(default_factory=dict)

    def check(self) -> None:
        """Raise now for a place, a size or a rate that would fail after minutes of sampling."""
        self._spec(0)
        for video, name in enumerate(self.names):
            if not self._done(video):
                check_output(name)

    def write(self, chunk: Chunk) -> None:
        """Append frames to their video; its last frames close it."""
        video = chunk.video
        if video not in self._open:
            self._open[video] = None if self._done(video) else self._writer(video)
        writer = self._open[video]
        if writer is not None:
            writer.write(chunk.frames)
        if chunk.start + len(chunk.frames) >= self.facts.frames:
            if writer is not None:
                writer.close()
            del self._open[video]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._open.values():
            if writer is not None:
                writer.abort()

    def _writer(self, video: int) -> VideoWriter:
        return open_writer(self.names[video], self._spec(video), self.stdout)

    def _spec(self, video: int) -> VideoSpec:
        return VideoSpec(
            frames=self.facts.frames,
            size=self.facts.size,
            fps=self.facts.fps,
            settings=self._settings(video),
        )

    def _settings(self, video: int) -> str:
        return json.dumps({**self.facts.settings, "video": video})

    def _done(self, video: int) -> bool:
        """Whether an interrupted run of the same settings has finished this video."""
        name = self.names[video]
        if not self.skip_done or name == "-" or not Path(name).exists():
            return False
        sidecar = sidecar_path(Path(name))
        return sidecar.is_file() and sidecar.read_bytes().strip() == self._settings(video).encode()


def output_names(out: str, videos: int) -> list[str]:
    """Return where each video goes.

    One video goes to `out` itself, several to `sky-000.mp4`, `sky-001.mp4` and so on.
    Raises OptionsError for several videos to standard output.
    """
    if videos == 1:
        return [out]
    if out == "-":
        raise OptionsError(f"{videos} videos cannot share standard output; give a file name")
    path = Path(out)
    digits = max(3, len(str(videos - 1)))
    slash = "/" if out.endswith("/") else ""
    return [
        f"{path.with_name(f'{path.stem}-{k:0{digits}d}{path.suffix}')}{slash}"
        for k in range(videos)
    ]
