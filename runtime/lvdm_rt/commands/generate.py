"""One generation job from options to whole video files; knows nothing of flags or terminals."""

import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from lvdm_engines.atomic import is_taken
from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import load_bundle
from lvdm_engines.errors import (
    KEPT,
    DeviceMemoryError,
    OptionsError,
    OtherRunError,
    SessionError,
    VideoError,
    WorkError,
    quoted,
)
from lvdm_engines.manifest import Manifest, ModelFacts
from lvdm_rt.commands.described import Described
from lvdm_rt.commands.outputs import Outputs, output_names, refuse_existing
from lvdm_rt.long import workdir
from lvdm_rt.long.plan import plan
from lvdm_rt.long.workdir import holds_clips, work_path
from lvdm_rt.options import GenerateOptions, Settings, resolve
from lvdm_rt.pipeline import Pipeline, Progress
from lvdm_rt.request import frames_sha256, model_sha256
from lvdm_rt.video import (
    MAX_PIXELS,
    Frames,
    ReadSpec,
    VideoSpec,
    check_output,
    read_frames,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GenerateJob:
    """What to generate, with what, and where it goes (see `output_kind` for `out`).

    `condition` has pictures of at most `max_pixels`; `join` puts its frames before the new ones.
    `force` replaces what lies at `out`, `restart` throws away what an interrupted run left.
    `repeats` holds the settings of a sidecar that this job must repeat.
    """

    out: str
    options: GenerateOptions
    bundle: str = "sky-tiny"
    backend: str = "auto"
    session: SessionOptions | None = None
    condition: Path | None = None
    max_pixels: int = MAX_PIXELS
    join: bool = False
    prompt: str | None = None
    crf: int | None = None
    resume: bool = False
    restart: bool = False
    force: bool = False
    repeats: dict[str, Any] | None = None


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
    that was interrupted continues with `resume`. Raises LvdmError, with the note KEPT where there
    is something to go on with.
    """
    names = output_names(job.out, job.options.videos)
    if job.out != "-" and not job.force and not job.resume:
        for name in names:
            refuse_existing(Path(name))
    _check_condition(job, names)
    work = work_path(job.out)
    bundle = load_bundle(job.bundle)
    _check_prompt(job, bundle.manifest)
    settings = resolve(job.options, bundle.manifest)
    _check_early(job, names, bundle.manifest.model, settings)
    with Pipeline.open(bundle, job.backend, job.session) as pipeline:
        given = _given(job, pipeline, settings)
        described = _describe(job, pipeline, settings, given)
        outputs = Outputs(names, described, stdout, resume=job.resume, force=job.force)
        result = Result(tuple(names), pipeline.backend, msgspec.to_builtins(settings))
        outputs.check()
        last = None if given is None else given.last
        if outputs.all_done:
            if work is not None and work.exists() and not pipeline.owns(work, settings, last):
                _log.warning("%s holds another run, which is left as it is", work)
                work = None
        else:
            stream = pipeline.stream_videos(
                settings,
                condition=last,
                work=work,
                resume=job.resume,
                restart=job.restart,
                progress=progress,
            )
            try:
                with stream, outputs:
                    for chunk in stream:
                        outputs.write(chunk)
                    outputs.finish()
            except BaseException as err:
                left = work if work is not None and holds_clips(work) else None
                if left and _may_pass(err) and pipeline.owns(left, settings, last):
                    err.add_note(KEPT)
                raise
    if work is not None:
        workdir.remove(work)
    return result


def _may_pass(err: BaseException) -> bool:
    """Tell whether the same run could succeed later: errors of the disk and the engines."""
    # too little memory and another run's work say themselves what to do, and that is another run
    if isinstance(err, DeviceMemoryError | OtherRunError):
        return False
    return isinstance(err, KeyboardInterrupt | VideoError | SessionError | WorkError)


def _check_condition(job: GenerateJob, names: list[str]) -> None:
    """Refuse what is not there, and to write over what is. Raises OptionsError, VideoError."""
    if job.condition is None:
        return
    if not job.condition.exists():
        raise VideoError(f"cannot read {job.condition}: there is no such file")
    given = _real(job.condition)
    for name in names:
        if name != "-" and _real(Path(name)) in (given, *given.parents):
            raise OptionsError(f"{name} is or holds what is continued; choose another OUT")


def _check_early(job: GenerateJob, names: list[str], model: ModelFacts, settings: Settings) -> None:
    """Refuse what no engine can change, before one is opened, which can take a while."""
    spec = VideoSpec(
        frames=settings.frames, size=model.frame_size, fps=_rate(settings.fps), crf=job.crf
    )
    for name in names:
        if not (job.resume and is_taken(Path(name))):
            check_output(name, spec, replace=job.force)
    if job.condition is None:
        plan(settings.frames, model, settings.mode, settings.overlap)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # of a link to itself as well, which ends Path.resolve


def _check_prompt(job: GenerateJob, manifest: Manifest) -> None:
    """Refuse text for a model that reads none, and the other way round."""
    name, reads_text = manifest.name, manifest.model.context is not None
    if job.prompt is not None and not reads_text:
        raise OptionsError(f"got a prompt, but {name} was not trained with text; leave it out")
    if reads_text:
        raise OptionsError(
            f"{name} needs its text encoder, which this version cannot feed from a prompt;"
            " choose a bundle without context"
        )


@dataclass(frozen=True)
class _Given:
    """A condition video at the model's size and rate: its last frames, and how many there are."""

    last: Frames
    count: int


def _given(job: GenerateJob, pipeline: Pipeline, settings: Settings) -> _Given | None:
    if job.condition is None:
        return None
    manifest = pipeline.manifest
    rate = _rate(manifest.defaults.fps)
    spec = ReadSpec(size=manifest.model.frame_size, fps=rate, max_pixels=job.max_pixels)
    last: deque[Frames] = deque(maxlen=pipeline.condition_frames(settings))
    count = 0
    for frames in read_frames(job.condition, spec):
        last.extend(frames)
        count += len(frames)
    return _Given(np.stack(list(last)), count)


def _describe(
    job: GenerateJob, pipeline: Pipeline, settings: Settings, given: _Given | None
) -> Described:
    manifest = pipeline.manifest
    described = {
        "lvdm_rt": version("lvdm-rt"),
        "bundle": manifest.name,
        "model_sha256": model_sha256(manifest),
        "arithmetic": pipeline.arithmetic,
        **msgspec.to_builtins(settings),
    }
    if job.crf is not None:
        described["crf"] = job.crf
    if job.condition is not None and given is not None:
        described["condition"] = job.condition.name
        described["condition_sha256"] = frames_sha256(given.last)
        if job.join:
            described["joined_frames"] = given.count
    _check_repeats(job, described)
    return Described(
        frames=settings.frames,
        size=manifest.model.frame_size,
        fps=_rate(settings.fps),
        settings=described,
        first_video=settings.first_video,
        crf=job.crf,
        condition=job.condition,
        given=given.count if job.join and given is not None else 0,
        max_pixels=job.max_pixels,
    )


def _check_repeats(job: GenerateJob, described: dict[str, Any]) -> None:
    """Refuse another model or condition than those of the video to be repeated.

    Another backend or precision computes the same video but for the last bits, and is only told.
    """
    for name in ("model_sha256", "condition_sha256"):
        before = (job.repeats or {}).get(name)
        if before is not None and before != described.get(name):
            what = "bundle" if name == "model_sha256" else "condition"
            raise OptionsError(
                f"the {what} is not the one that the video was made with ({name} "
                f"{str(before)[:12]}… expected); give that one with --{what}"
            )
    before, now = (job.repeats or {}).get("arithmetic"), described["arithmetic"]
    if before is not None and before != now:
        _log.warning(
            "the video was made by %s and is repeated by %s, which rounds in other places: the "
            "pictures can differ a little; --backend and --precision choose",
            quoted(before),
            now,
        )


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)
