from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lvdm_rt.video import ReadSpec, VideoSpec, open_writer, read_frames

Frames = np.ndarray


def moving_scene(count: int, height: int, width: int) -> Frames:
    """A smooth scene with little colour, uint8 (f, h, w, 3); every frame differs from the last."""
    y, x = np.mgrid[0:height, 0:width]
    frames = [
        np.stack(
            [
                128 + 80 * np.sin((x + 2 * i) / 9) + 20 * np.cos(y / 11),
                128 + 80 * np.sin((x + 2 * i) / 9) + 10 * np.cos(y / 7),
                138 + 80 * np.sin((x + 2 * i) / 9),
            ],
            axis=-1,
        )
        for i in range(count)
    ]
    return np.clip(np.round(np.stack(frames)), 0, 255).astype(np.uint8)


@pytest.fixture
def scene() -> Callable[[int, int, int], Frames]:
    return moving_scene


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, frames: Frames, fps: Fraction | int = 8, settings: str = "") -> Path:
        spec = VideoSpec(
            frames=len(frames), size=frames.shape[1:3], fps=Fraction(fps), settings=settings
        )
        with open_writer(f"{tmp_path}/{name}", spec) as writer:
            for start in range(0, len(frames), 5):
                writer.write(frames[start : start + 5])
        return tmp_path / name

    return write


@pytest.fixture
def read() -> Callable[..., Frames]:
    def read(
        path: Path, size: tuple[int, int] = (8, 8), fps: Fraction | int = 8, **limits: int
    ) -> Frames:
        spec = ReadSpec(size=size, fps=Fraction(fps), **limits)
        return np.concatenate(list(read_frames(path, spec)))

    return read


@pytest.fixture
def psnr() -> Callable[[Frames, Frames], float]:
    """Peak signal-to-noise ratio in dB."""

    def psnr(a: Frames, b: Frames) -> float:
        error = np.mean((a.astype(np.float64) - b) ** 2)
        return float(10 * np.log10(255**2 / max(error, 1e-9)))

    return psnr
