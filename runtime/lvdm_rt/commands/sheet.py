"""`lvdm-rt sheet`: frames of several videos in one picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lvdm_engines.errors import OptionsError, VideoError
from lvdm_rt.commands.lettering import HEIGHT, ground, line
from lvdm_rt.commands.looked_at import STILL_RATE, Size, look_at
from lvdm_rt.commands.outputs import refuse_existing, refuse_input
from lvdm_rt.video import Frames, ReadSpec, missing_encoder, read_frames
from lvdm_rt.video.look import length
from lvdm_rt.video.png_file import write_png

_GAP = 2  # pixels between frames
_MOST = 1 << 27  # pixels of a sheet, of three bytes each


@dataclass(frozen=True, kw_only=True)
class SheetJob:
    """What is asked: every Nth frame, None for as many as fill one row of `columns` a video."""

    inputs: tuple[str, ...]
    out: str
    every: int | None
    columns: int
    labels: bool
    size: Size | None
    force: bool


@dataclass(frozen=True)
class _Strip:
    """The frames of one video, `every`th of `frames`, and the row that they begin in."""

    path: Path
    spec: ReadSpec
    frames: int
    every: int
    row: int

    def rows(self, columns: int) -> int:
        """Return the rows that they fill."""
        return -(-self.frames // (self.every * columns))


def make_sheet(job: SheetJob) -> str:
    """Write the sheet, and say what it is.

    Raises OptionsError for sizes that differ, a sheet that is too large or a place that is taken,
    VideoError for what cannot be read or written.
    """
    out = Path(job.out)
    _check_place(out, force=job.force)
    refuse_input(job.out, job.inputs)
    strips = list(_strips(job))
    sheet = _drawn(job, strips)
    if not job.force:
        refuse_existing(out)  # something may have come there meanwhile
    write_png(out, sheet)
    shown = sum(-(-strip.frames // strip.every) for strip in strips)
    frames, (height, width, _) = sum(strip.frames for strip in strips), sheet.shape
    return f"{shown} of {frames} frames, {width}×{height} pixels"


def _check_place(out: Path, *, force: bool) -> None:
    if out.suffix.lower() != ".png":
        raise OptionsError(f"cannot write {out}: a sheet is one picture; give a name with .png")
    if problem := missing_encoder("png"):
        raise VideoError(f"cannot write {out}: {problem}")
    if not out.parent.is_dir():
        raise VideoError(f"cannot write {out}: there is no directory {out.parent}; make it first")
    if out.is_dir() or out.is_symlink():
        raise OptionsError(f"cannot write {out}: it is no file; choose another name")
    if not force:
        refuse_existing(out)


def _strips(job: SheetJob) -> Iterator[_Strip]:
    videos, row = look_at(job.inputs, job.size), 0
    for path, seen in zip(videos.paths, videos.looks, strict=True):
        spec = ReadSpec(size=videos.size, fps=seen.fps or STILL_RATE)
        frames = length(path, spec.fps)
        strip = _Strip(path, spec, frames, job.every or -(-frames // job.columns), row)
        yield strip
        row += strip.rows(job.columns)


def _drawn(job: SheetJob, strips: list[_Strip]) -> Frames:
    """Draw the sheet: uint8 (h, w, 3)."""
    height, width = (side + _GAP for side in strips[0].spec.size)
    label = HEIGHT * job.labels
    columns = max(min(job.columns, -(-strip.frames // strip.every)) for strip in strips)
    size = (
        (strips[-1].row + strips[-1].rows(job.columns)) * (height + label) + _GAP,
        columns * width + _GAP,
    )
    if size[0] * size[1] > _MOST:
        raise OptionsError(
            f"the sheet would have {size[1]}×{size[0]} pixels, expected at most {_MOST} in all; "
            "raise --every, or give a smaller --size"
        )
    sheet = ground(*size)
    for strip in strips:
        for place, frame in enumerate(_chosen(strip)):
            row, column = divmod(place, job.columns)
            top = (strip.row + row) * (height + label) + _GAP
            if label and column == 0:
                sheet[top : top + label, _GAP:] = line(size[1] - _GAP, *_label(job, strip, row))
            left = column * width + _GAP
            sheet[top + label :, left:][: height - _GAP, : width - _GAP] = frame
    return sheet


def _chosen(strip: _Strip) -> Iterator[Frames]:
    index = 0
    for chunk in read_frames(strip.path, strip.spec):
        yield from chunk[-index % strip.every :: strip.every]
        index += len(chunk)


def _label(job: SheetJob, strip: _Strip, row: int) -> tuple[str, str]:
    """Return the name, and which frames stand in the row, counted from 0."""
    first = row * job.columns * strip.every
    last = min(
        first + (job.columns - 1) * strip.every, (strip.frames - 1) // strip.every * strip.every
    )
    return strip.path.name, f" {first}-{last} / {strip.frames}"
