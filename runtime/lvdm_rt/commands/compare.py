"""`lvdm-rt compare`: several videos side by side in one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import numpy as np

from lvdm_engines.errors import OptionsError
from lvdm_rt.commands.lettering import HEIGHT, ground, line
from lvdm_rt.commands.looked_at import STILL_RATE, LookedAt, Size, look_at
from lvdm_rt.commands.outputs import check_free, refuse_input
from lvdm_rt.video import Frames, ReadSpec, VideoSpec, check_output, open_writer, read_frames
from lvdm_rt.video.look import length

_GAP = 2  # pixels between videos


@dataclass(frozen=True, kw_only=True)
class CompareJob:
    """What is asked; `fps` is what all are brought to, their own rate if None."""

    inputs: tuple[str, ...]
    out: str
    labels: bool
    size: Size | None
    fps: Fraction | None
    force: bool


def compare(job: CompareJob) -> str:
    """Write the videos side by side, as long as the shortest is, and say what was written.

    Raises OptionsError for sizes or rates that differ or a place that is taken, VideoError for what
    cannot be read or written.
    """
    if len(job.inputs) < 2:
        raise OptionsError(f"got {job.inputs[0]} alone, expected two videos or more to compare")
    videos = look_at(job.inputs, job.size)
    fps = job.fps or _common_rate(videos)
    spec = _spec(job, videos, fps, [])
    _check(job, spec)  # before anything is decoded
    lengths = [length(path, fps) for path in videos.paths]
    spec = _spec(job, videos, fps, lengths)
    with open_writer(job.out, spec, replace=job.force) as writer:
        for frame in _side_by_side(job, videos, spec):
            writer.write(frame)
        _check(job, spec)  # something may have come there meanwhile
    told = f"{spec.frames} frames of {len(lengths)} videos, {spec.size[1]}×{spec.size[0]} pixels"
    if len(set(lengths)) > 1:
        told += f"; they have {', '.join(map(str, lengths))} frames, and it ends with the shortest"
    return told


def _spec(job: CompareJob, videos: LookedAt, fps: Fraction, lengths: list[int]) -> VideoSpec:
    height, width = videos.size
    told = {
        "lvdm_rt": version("lvdm-rt"),
        "compare": [str(path) for path in videos.paths],
        "size": [height, width],
        "fps": float(fps),
    }
    return VideoSpec(
        frames=min(lengths, default=1),
        size=(height + HEIGHT * job.labels, len(videos.paths) * (width + _GAP) - _GAP),
        fps=fps,
        settings=json.dumps(told),
    )


def _check(job: CompareJob, spec: VideoSpec) -> None:
    refuse_input(job.out, job.inputs)
    if job.out != "-":
        check_free(Path(job.out), json.loads(spec.settings), force=job.force)
    check_output(job.out, spec, replace=job.force)


def _common_rate(videos: LookedAt) -> Fraction:
    """Return the one rate of all films; folders of pictures have none and follow."""
    rates = {seen.fps: path for path, seen in zip(videos.paths, videos.looks, strict=True)}
    rates.pop(None, None)
    if len(rates) > 1:
        (fps, path), (other, its) = list(rates.items())[:2]
        raise OptionsError(
            f"{path} has {float(fps or 0):g} frames per second and {its} {float(other or 0):g}; "
            "give the rate that both are brought to (--fps)"
        )
    return next((fps for fps in rates if fps is not None), STILL_RATE)


def _side_by_side(job: CompareJob, videos: LookedAt, spec: VideoSpec) -> Iterator[Frames]:
    """Yield frames, uint8 (1, h, w, 3), until the shortest video ends."""
    _, width = videos.size
    picture = ground(*spec.size)
    top = HEIGHT * job.labels
    lefts = range(0, spec.size[1], width + _GAP)
    if job.labels:
        for left, path in zip(lefts, videos.paths, strict=True):
            picture[:top, left : left + width] = line(width, path.name)
    read = ReadSpec(size=videos.size, fps=spec.fps)
    streams = [_frames(path, read) for path in videos.paths]
    for frames in zip(*streams, strict=False):
        for left, frame in zip(lefts, frames, strict=True):
            picture[top:, left : left + width] = frame
        yield np.copy(picture[None])


def _frames(path: Path, spec: ReadSpec) -> Iterator[Frames]:
    for chunk in read_frames(path, spec):
        yield from chunk
