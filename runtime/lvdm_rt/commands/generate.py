"""One generation job from options to whole video files; knows nothing of flags or terminals."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import msgspec

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import Bundle, load_bundle
from lvdm_engines.errors import KEPT
from lvdm_engines.manifest import Manifest
from lvdm_rt.commands.job import GenerateJob, Result
from lvdm_rt.commands.listing import Group
from lvdm_rt.commands.making import (
    VideoCall,
    check_condition,
    check_early,
    make_videos,
    may_pass,
)
from lvdm_rt.commands.outputs import refuse_existing
from lvdm_rt.commands.previewing import preview_file
from lvdm_rt.long.workdir import work_path
from lvdm_rt.options import resolve
from lvdm_rt.pipeline import Pipeline, ProgressCallback
from lvdm_rt.text.prompts import check_prompted

Opening = Callable[[Bundle, str, SessionOptions | None], AbstractContextManager[Pipeline]]


def generate(
    job: GenerateJob,
    progress: ProgressCallback | None = None,
    stdout: BinaryIO | None = None,
    opening: Opening | None = None,
) -> Result:
    """Generate the videos of `job`, each written whole or not at all.

    What is finished stays in `work_path(job.out)`, of a list beside the first video of each length,
    until everything is written, so that a job that was interrupted continues with `resume`. Raises
    LvdmError, with the note KEPT where there is something to go on with. `opening` may give another
    pipeline than one of this process.
    """
    groups = job.groups()
    names = job.names
    if job.out != "-" and not job.force and not job.resume:
        for name in names:
            refuse_existing(Path(name))
    check_condition(job.condition, names)
    bundle = load_bundle(job.bundle)
    calls = [_call(job, group, bundle.manifest) for group in groups]
    for call in calls:
        check_prompted(call.settings.prompts, bundle.manifest)
        check_early(call, bundle.manifest.model)
    preview = preview_file(job, bundle.manifest)
    with (opening or Pipeline.open)(bundle, job.backend, job.session) as pipeline:
        finished = False
        for call in calls:
            try:
                make_videos(
                    call, pipeline, progress, stdout, None if preview is None else preview.show
                )
            except BaseException as err:
                if finished and may_pass(err) and KEPT not in getattr(err, "__notes__", ()):
                    err.add_note(KEPT)
                raise
            finished = True
        told = [msgspec.to_builtins(own) for call in calls for own in call.asked]
        if not job.listed:
            return Result(tuple(names), pipeline.backend, told[0])
        by_name = dict(zip((name for group in groups for name in group.names), told, strict=True))
        return Result(tuple(names), pipeline.backend, [by_name[name] for name in names])


def _call(job: GenerateJob, group: Group, manifest: Manifest) -> VideoCall:
    """Return how the videos of a group are made. Raises OptionsError."""
    listed = bool(job.listed)
    return VideoCall(
        names=tuple(group.names),
        asked=tuple(resolve(own, manifest) for own in group.options),
        each=listed,
        work=work_path(group.names[0] if listed else job.out or ""),
        condition=job.condition,
        max_pixels=job.max_pixels,
        join=job.join,
        crf=job.crf,
        resume=job.resume,
        restart=job.restart,
        force=job.force,
        repeats=job.repeats,
    )
