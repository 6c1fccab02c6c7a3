"""Pictures of a finished video: its first frame, or eight of it side by side."""

from fractions import Fraction
from pathlib import Path

from lvdm_rt.commands.sheet import SheetJob, make_sheet
from lvdm_rt.serve.jobs import VideoJob
from lvdm_rt.video import ReadSpec, read_frames
from lvdm_rt.video.png_file import write_png

VARIANTS = ("thumbnail", "spritesheet")
_COLUMNS = 8


def draw(job: VideoJob, video: Path, variant: str, target: Path) -> None:
    """Write one of `VARIANTS` as a PNG. Raises VideoError."""
    if variant == "thumbnail":
        width, height = map(int, job.size.split("x"))
        rate = Fraction(job.settings.fps).limit_denominator(1001)
        frames = read_frames(video, ReadSpec(size=(height, width), fps=rate, chunk=1))
        write_png(target, next(frames)[0])
        return
    sheet = SheetJob(
        inputs=(str(video),),
        out=str(target),
        every=None,
        columns=_COLUMNS,
        labels=False,
        size=None,
        force=True,
    )
    make_sheet(sheet)
