"""Pictures of a run: sample sheets (PNG, MP4) and loss curves."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.video import VideoSpec, open_writer
from lvdm_tools.outputs import keep_matplotlib_out_of_home
from lvdm_tools.train.state import write_whole

_GAP = 2  # pixels between the pictures of a sheet


def sheet(clips: NDArray[np.uint8], scale: int = 1) -> NDArray[np.uint8]:
    """Lay out clips (n, f, h, w, 3) as one picture: a row per clip, a column per frame."""
    rows, columns = clips.shape[:2]
    clips = clips.repeat(scale, axis=2).repeat(scale, axis=3)
    padded = np.pad(clips, ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0)))
    height, width = padded.shape[2:4]
    return padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)


def write(stem: Path, clips: NDArray[np.uint8], fps: int = 8) -> None:
    """Write clips (n, f, h, w, 3): `stem`.png (all frames) and `stem`.mp4 (clips in a column)."""
    keep_matplotlib_out_of_home()
    from matplotlib.image import imsave

    scale = max(1, 128 // clips.shape[2])
    picture = sheet(clips, scale=1)
    write_whole(stem.with_suffix(".png"), lambda draft: imsave(draft, picture, format="png"))
    moving = [
        sheet(clips[:, frame : frame + 1].swapaxes(0, 1), scale) for frame in range(clips.shape[1])
    ]
    spec = VideoSpec(frames=len(moving), size=moving[0].shape[:2], fps=Fraction(fps))
    with open_writer(str(stem.with_suffix(".mp4")), spec) as writer:
        writer.write(np.stack(moving))


def curves(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Draw every logged number over the steps, one panel each; before the first, nothing."""
    keep_matplotlib_out_of_home()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    hidden = {"step", "steps_per_second"}
    names = list(dict.fromkeys(name for line in history for name in line if name not in hidden))
    if not names:
        return
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    width, height = 4 * columns, 3 * rows  # inches; margins are fixed: to fit them takes seconds
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.6 / width,
        right=1 - 0.1 / width,
        top=1 - 0.3 / height,
        bottom=0.45 / height,
        wspace=0.2,
        hspace=0.35,
    )
    for panel, name in enumerate(names, start=1):
        points = [(line["step"], line[name]) for line in history if name in line]
        axes = figure.add_subplot(rows, columns, panel)
        axes.plot(*zip(*points, strict=True), linewidth=1, marker="." if len(points) < 10 else "")
        if all(value > 0 for _, value in points) and name != "psnr":
            axes.set_yscale("log")
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    write_whole(path, lambda draft: figure.savefig(draft, format="png", dpi=100))
