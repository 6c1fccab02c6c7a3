"""`lvdm-tools data prepare`: make a published data set a folder that can be trained on."""

from pathlib import Path

import click
import tqdm

from lvdm_engines.backends.processor import usable_cores
from lvdm_engines.command_line import tell
from lvdm_engines.ranges import WholeRange
from lvdm_tools.data.layouts import LAYOUTS, PARTS
from lvdm_tools.data.prepare import RECORD, Prepared, Recipe, prepare

_TOLD = 5  # items that are left out are named, up to so many


@click.command("prepare")
@click.argument("kind", type=click.Choice(list(LAYOUTS)), metavar="[ucf101|sky-timelapse|taichi]")
@click.argument("source", type=click.Path(path_type=Path), metavar="SRC")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR")
@click.option(
    "--size",
    type=WholeRange(8, 4096),
    metavar="N",
    help="Write frames of N×N pixels, the middle of each. Default: link what is there as it is; "
    "256 for what boxes cut out.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["png", "mp4"]),
    default="png",
    show_default=True,
    help="What frames are written as: png loses nothing, mp4 is much smaller.",
)
@click.option(
    "--min-frames", type=WholeRange(min=1), default=16, show_default=True, metavar="N",
    help="Leave out what is shorter.",
)  # fmt: skip
@click.option(
    "--split", type=WholeRange(1, 3), default=1, show_default=True, help="Which of UCF-101's."
)
@click.option("--jobs", type=WholeRange(1, 256), metavar="N", help="At once; default: cores.")
def command(kind: str, source: Path, out: Path, jobs: int | None, **how: object) -> None:
    """Make a data set that lies in SRC a folder for --data: DIR/train and DIR/test.

    Every frame is decoded once. What is damaged, short or missing is left out and listed, with
    reasons, in DIR/prepared.json. Run again after an interruption, it goes on where it stopped.
    Nothing is downloaded.
    """
    recipe = Recipe(kind=kind, source=str(source.resolve()), **how)  # type: ignore[arg-type]
    with tqdm.tqdm(unit="video", disable=None) as bar:

        def watch(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        record = prepare(recipe, out, jobs or usable_cores(), watch)
    _tell(record, out)


def _tell(record: Prepared, out: Path) -> None:
    left_out = list(record.left_out.items())
    for name, reason in left_out[:_TOLD]:
        tell(f"left out: {name}: {reason}")
    if len(left_out) > _TOLD:
        tell(f"left out: {len(left_out) - _TOLD} more, see {out / RECORD}")
    counts = " and ".join(f"{record.count(part)} for {part}" for part in PARTS)
    tell(f"{out}: {len(record.taken)} videos, {counts}; {len(left_out)} left out")
