"""One generation job from options to whole video files; knows nothing of flags or terminals."""

import json
import logging
import os
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np

from lvdm_engines.atomic import is_taken
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
from lvdm_engines.manifest import ModelFacts
from lvdm_rt.commands.described import Described
from lvdm_rt.commands.job import GenerateJob, Result
from lvdm_rt.commands.outputs import Outputs, refuse_existing
from lvdm_rt.commands.previewing import preview_file
from lvdm_rt.long import workdir
from lvdm_rt.long.plan import plan
from lvdm_rt.long.workdir import holds_clips, work_path
from lvdm_rt.options import Settings, resolve
from lvdm_rt.pipeline import Pipeline
from lvdm_rt.progress import PreviewCallback, ProgressCallback
from lvdm_rt.request import frames_sha256, model_sha256
from lvdm_rt.text.prompts import check_prompted
from lvdm_rt.video import (
    Frames,
    ReadSpec,
    VideoSpec,
    check_output,
    read_frames,
)

_log = logging.getLogger(__name__)


class _Tell(NamedTuple):
    """Who is told how far a run is, and what its clips seem to become."""

    progress: ProgressCallback | None
    preview: PreviewCallback | None


def generate(
    job: GenerateJob,
    progress: ProgressCallback | None = None,
    stdout: BinaryIO | None = None,
) -> Result:
    """Generate the videos of `job`, each written whole or not at all.

    What is finished stays in `work_path(job.out)`, of a list beside the first video of each length,
    until everything is written, so that a job that was interrupted continues with `resume`. Raises
    LvdmError, with the note KEPT where there is something to go on with.
    """
    groups = job.groups()
    names = job.names
    if job.out != "-" and not job.force and not job.resume:
        for name in names:
            refuse_existing(Path(name))
    _check_condition(job, names)
    bundle = load_bundle(job.bundle)
    asked = [[resolve(own, bundle.manifest) for own in group.options] for group in groups]
    for group, settings in zip(groups, asked, strict=True):
        check_prompted(settings[0].prompts, bundle.manifest)
        _check_early(job, group.names, bundle.manifest.model, settings[0])
    preview = preview_file(job, bundle.manifest)
    tell = _Tell(progress, None if preview is None else preview.show)
    with Pipeline.open(bundle, job.backend, job.session) as pipeline:
        finished = False
        for group, settings in zip(groups, asked, strict=True):
            try:
                _generate(job, group.names, settings, pipeline, tell, stdout)
            except BaseException as err:
                if finished and _may_pass(err) and KEPT not in getattr(err, "__notes__", ()):
                    err.add_note(KEPT)
                raise
            finished = True
        told = [msgspec.to_builtins(own) for settings in asked for own in settings]
        if not job.listed:
            return Result(tuple(names), pipeline.backend, told[0])
        by_name = dict(zip((name for group in groups for name in group.names), told, strict=True))
        return Result(tuple(names), pipeline.backend, [by_name[name] for name in names])


def _generate(
    job: GenerateJob,
    names: list[str],
    settings: list[Settings],
    pipeline: Pipeline,
    tell: _Tell,
    stdout: BinaryIO | None,
) -> None:
    """Make the videos of one call, to `names`."""
    work = work_path(names[0] if job.listed else job.out or "")
    asked = settings if job.listed else settings[0]
    given = _given(job, pipeline, settings[0])
    described = _describe(job, pipeline, settings, given)
    outputs = Outputs(names, described, stdout, resume=job.resume, force=job.force)
    outputs.check()
    last = None if given is None else given.last
    if outputs.all_done:
        if work is not None and work.exists() and not pipeline.owns(work, asked, last):
            _log.warning("%s holds another run, which is left as it is", work)
            work = None
    else:
        stream = pipeline.stream_videos(
            asked,
            condition=last,
            work=work,
            resume=job.resume,
            restart=job.restart,
            progress=tell.progress,
            preview=tell.preview,
        )
        try:
            with stream, outputs:
                for chunk in stream:
                    outputs.write(chunk)
                outputs.finish()
        except BaseException as err:
            left = work if work is not None and holds_clips(work) else None
            if left and _may_pass(err) and pipeline.owns(left, asked, last):
                err.add_note(KEPT)
            raise
    if work is not None:
        workdir.remove(work)


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
    job: GenerateJob, pipeline: Pipeline, asked: list[Settings], given: _Given | None
) -> Described:
    manifest, settings = pipeline.manifest, asked[0]
    described = {
        "lvdm_rt": version("lvdm-rt"),
        "bundle": manifest.name,
        "model_sha256": model_sha256(manifest),
        "arithmetic": pipeline.arithmetic,
        **_as_json(settings),
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
        each=tuple(_as_json(own) for own in asked) if job.listed else (),
        first_video=0 if job.listed else settings.first_video,
        crf=job.crf,
        condition=job.condition,
        given=given.count if job.join and given is not None else 0,
        max_pixels=job.max_pixels,
    )


def _as_json(settings: Settings) -> dict[str, Any]:
    """Return settings as a file gives them back."""
    told: dict[str, Any] = json.loads(msgspec.json.encode(settings))
    return told


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
