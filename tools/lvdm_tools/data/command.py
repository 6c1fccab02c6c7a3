"""`lvdm-tools synth`: write synthetic sky time-lapses as video files."""

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import tqdm

from lvdm_engines.command_line import tell
from lvdm_engines.errors import OptionsError, VideoError, cause
from lvdm_engines.ranges import NumberRange, WholeRange
from lvdm_rt.bounds import MAX_FRAMES, MAX_SEED, MAX_VIDEOS
from lvdm_rt.commands.outputs import settings_beside
from lvdm_rt.commands.viewing import read_size
from lvdm_rt.video import VideoSpec, open_writer, sidecar_path
from lvdm_tools.data.caption_file import add_captions
from lvdm_tools.data.captions import caption
from lvdm_tools.data.synth import sky_clip
from lvdm_tools.outputs import check_free

_BLOCK = 64  # frames drawn at a time: memory does not grow with the length


@click.command("synth")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder, or for a single clip a file: .mp4, .webm, .gif or .npz.",
)
@click.option("--clips", type=WholeRange(1, MAX_VIDEOS), default=1, show_default=True)
@click.option("--frames", type=WholeRange(1, MAX_FRAMES), default=256, show_default=True)
@click.option(
    "--size", callback=read_size, default="64", show_default=True, help="Pixels: 64, or 96x64."
)
@click.option("--seed", type=WholeRange(0, MAX_SEED), default=0, show_default=True)
@click.option("--first", type=WholeRange(min=0), default=0, help="Number of the first clip.")
@click.option("--fps", type=NumberRange(0.1, 1000), default=8.0, show_default=True)
@click.option("--force", is_flag=True, help="Replace files that exist.")
def command(out: Path, clips: int, first: int, fps: float, *, force: bool, **sky: Any) -> None:
    """Write a procedural sky time-lapse: the data of the built-in model, as videos.

    A folder also gets captions.jsonl, which says in words what each of its videos shows.
    """
    paths = _paths(out, clips, first)
    for path in paths:
        _check(path, force=force)
    _make_folder(out)
    if not out.suffix:  # first, so that an interruption leaves no video without its words
        middle = sky["frames"] // 2
        words = {
            path.name: caption(sky["seed"], index, middle)
            for index, path in enumerate(paths, first)
        }
        add_captions(out, words)
    for index, path in tqdm.tqdm(enumerate(paths, first), total=clips, unit="clip", disable=None):
        rate = Fraction(fps).limit_denominator(1000)
        _write(path, SkyFile(index=index, **sky), rate, force=force)
    height, width = sky["size"]
    tell(f"{out}: {clips} × {sky['frames']} frames of {width}×{height}")


@dataclass(frozen=True)
class SkyFile:
    """What one file shows."""

    seed: int
    index: int
    frames: int
    size: tuple[int, int]


def _check(path: Path, *, force: bool) -> None:
    settings_beside(path, "lvdm_rt", "synth")
    check_free([path, sidecar_path(path)], force=force)


def _write(path: Path, sky: SkyFile, fps: Fraction, *, force: bool) -> None:
    spec = VideoSpec(
        frames=sky.frames, size=sky.size, fps=fps, settings=json.dumps({"synth": asdict(sky)})
    )
    with open_writer(str(path), spec) as writer:
        for start in range(0, sky.frames, _BLOCK):
            count = min(_BLOCK, sky.frames - start)
            writer.write(sky_clip(sky.seed, count, sky.size, index=sky.index, start=start))
        _check(path, force=force)  # something may have come there meanwhile


def _paths(out: Path, clips: int, first: int) -> list[Path]:
    if out.suffix:
        if clips > 1:
            raise OptionsError(f"{out} is one file, but {clips} clips were asked; give a folder")
        return [out]
    return [out / f"sky-{index:05}.mp4" for index in range(first, first + clips)]


def _make_folder(out: Path) -> None:
    if out.suffix:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise VideoError(f"cannot make the folder {out}: {cause(err)}") from err
