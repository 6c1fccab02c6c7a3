"""Videos that are made in one call of an open pipeline: each file whole or not at all.

A `VideoCall` says all of it and can be pickled. Knows pipelines, files of videos and work
directories; nothing of command lines, lists, or how an engine is opened.
"""

import json
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from lvdm_engines.atomic import is_taken
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
from lvdm_rt.commands.outputs import Outputs, refuse_input
from lvdm_rt.long import workdir
from lvdm_rt.long.plan import plan
from lvdm_rt.long.workdir import holds_clips
from lvdm_rt.options import Settings
from lvdm_rt.pipeline import Pipeline, ProgressCallback
from lvdm_rt.progress import PreviewCallback
from lvdm_rt.request import frames_sha256, model_sha256
from lvdm_rt.video import MAX_PIXELS, Frames, ReadSpec, VideoSpec, check_output, read_frames
from lvdm_rt.video.sidecar import file_facts

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VideoCall:
    """Videos of one call, where they go and what they share.

    With `each`, `asked` has the settings of every video, which may differ in seed, first_video and
    prompts; without it one entry stands for all. `work` keeps finished clips until everything is
    written. The rest is as in `GenerateJob`.
    """

    names: tuple[str, ...]
    asked: tuple[Settings, ...]
    each: bool
    work: Path | None = None
    condition: Path | None = None
    max_pixels: int = MAX_PIXELS
    join: bool = False
    crf: int | None = None
    resume: bool = False
    restart: bool = False
    force: bool = False
    repeats: dict[str, Any] | None = None

    @property
    def settings(self) -> Settings:
        """The settings of the first video."""
        return self.asked[0]


def make_videos(
    call: VideoCall,
    pipeline: Pipeline,
    progress: ProgressCallback | None = None,
    stdout: BinaryIO | None = None,
    preview: PreviewCallback | None = None,
) -> None:
    """Make the videos of one call; with `resume` those that are there already are kept.

    Raises LvdmError, with the note KEPT where there is something to go on with.
    """
    asked = call.asked if call.each else call.settings
    given = _given(call, pipeline)
    outputs = Outputs(
        list(call.names), _describe(call, pipeline, given), stdout, call.resume, call.force
    )
    outputs.check()
    work, last = call.work, None if given is None else given.last
    if outputs.all_done:
        if work is not None and work.exists() and not pipeline.owns(work, asked, last):
            _log.warning("%s holds another run, which is left as it is", work)
            work = None
    else:
        stream = pipeline.stream_videos(
            asked,
            condition=last,
            work=work,
            resume=call.resume,
            restart=call.restart,
            progress=progress,
            preview=preview,
        )
        try:
            with stream, outputs:
                for chunk in stream:
                    outputs.write(chunk)
                outputs.finish()
        except BaseException as err:
            left = work if work is not None and holds_clips(work) else None
            if left and may_pass(err) and pipeline.owns(left, asked, last):
                err.add_note(KEPT)
            raise
    if work is not None:
        workdir.remove(work)


def may_pass(err: BaseException) -> bool:
    """Tell whether the same run could succeed later: errors of the disk and the engines."""
    # too little memory and another run's work say themselves what to do, and that is another run
    if isinstance(err, DeviceMemoryError | OtherRunError):
        return False
    return isinstance(err, KeyboardInterrupt | VideoError | SessionError | WorkError)


def check_condition(condition: Path | None, names: Sequence[str]) -> None:
    """Refuse what is not there, and to write over what is. Raises OptionsError, VideoError."""
    if condition is None:
        return
    if not condition.exists():
        raise VideoError(
            f"cannot read {condition}: there is no such file; give a video or a picture"
        )
    for name in names:
        refuse_input(name, [condition])


def check_early(call: VideoCall, model: ModelFacts) -> None:
    """Refuse what no engine can change, before one is opened, which can take a while.

    Raises OptionsError, PlanError, VideoError.
    """
    settings = call.settings
    spec = VideoSpec(
        frames=settings.frames, size=model.frame_size, fps=_rate(settings.fps), crf=call.crf
    )
    for name in call.names:
        if not (call.resume and is_taken(Path(name))):
            check_output(name, spec, replace=call.force)
    if call.condition is None:
        plan(settings.frames, model, settings.mode, settings.overlap)


def as_json(settings: Settings) -> dict[str, Any]:
    """Return settings as a file gives them back."""
    told: dict[str, Any] = json.loads(msgspec.json.encode(settings))
    return told


@dataclass(frozen=True)
class _Given:
    """A condition video at the model's size and rate: its last frames, and how many there are."""

    last: Frames
    count: int


def _given(call: VideoCall, pipeline: Pipeline) -> _Given | None:
    if call.condition is None:
        return None
    manifest = pipeline.manifest
    rate = _rate(manifest.defaults.fps)
    spec = ReadSpec(size=manifest.model.frame_size, fps=rate, max_pixels=call.max_pixels)
    last: deque[Frames] = deque(maxlen=pipeline.condition_frames(call.settings))
    count = 0
    for frames in read_frames(call.condition, spec):
        last.extend(frames)
        count += len(frames)
    return _Given(np.stack(list(last)), count)


def _describe(call: VideoCall, pipeline: Pipeline, given: _Given | None) -> Described:
    manifest, settings = pipeline.manifest, call.settings
    described = {
        "lvdm_rt": version("lvdm-rt"),
        "bundle": manifest.name,
        "model_sha256": model_sha256(manifest),
        "arithmetic": pipeline.arithmetic,
        **as_json(settings),
    }
    if call.crf is not None:
        described["crf"] = call.crf
    if call.condition is not None and given is not None:
        described["condition"] = call.condition.name
        described["condition_sha256"] = frames_sha256(given.last)
        if call.join:
            described["joined_frames"] = given.count
            described["joined_sha256"] = file_facts(call.condition)["sha256"]
    _check_repeats(call.repeats or {}, described)
    return Described(
        frames=settings.frames,
        size=manifest.model.frame_size,
        fps=_rate(settings.fps),
        settings=described,
        each=tuple(as_json(own) for own in call.asked) if call.each else (),
        first_video=0 if call.each else settings.first_video,
        crf=call.crf,
        condition=call.condition,
        given=given.count if call.join and given is not None else 0,
        max_pixels=call.max_pixels,
    )


def _check_repeats(repeats: dict[str, Any], described: dict[str, Any]) -> None:
    """Refuse another model or condition than those of the video to be repeated.

    Another backend or precision computes the same video but for the last bits, and is only told.
    """
    for name in ("model_sha256", "condition_sha256"):
        before = repeats.get(name)
        if before is not None and before != described.get(name):
            what = "bundle" if name == "model_sha256" else "condition"
            raise OptionsError(
                f"the {what} is not the one that the video was made with ({name} "
                f"{str(before)[:12]}… expected); give that one with --{what}"
            )
    before, now = repeats.get("arithmetic"), described["arithmetic"]
    if before is not None and before != now:
        _log.warning(
            "the video was made by %s and is repeated by %s, which rounds in other places: the "
            "pictures can differ a little; --backend and --precision choose",
            quoted(before),
            now,
        )


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)
