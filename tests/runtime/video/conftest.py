from fractions import Fraction

import numpy as np
import pytest

from lvdm_rt.video import ReadSpec, VideoSpec, open_writer, read_frames


@pytest.fixture
def scene():
    """A smooth scene with little colour, uint8 (f, h, w, 3); every frame differs from the last."""

    def scene(count, height, width):
        y, x = np.mgrid[0:height, 0:width]
        waves = [80 * np.sin((x + 2 * i) / 9) for i in range(count)]
        frames = [
            np.stack([128 + w + 20 * np.cos(y / 11), 128 + w + 10 * np.cos(y / 7), 138 + w], -1)
            for w in waves
        ]
        return np.clip(np.round(np.stack(frames)), 0, 255).astype(np.uint8)

    return scene


@pytest.fixture
def write(tmp_path):
    def write(name, frames, fps=8, settings=""):
        facts = {"frames": len(frames), "size": frames.shape[1:3], "fps": Fraction(fps)}
        with open_writer(f"{tmp_path}/{name}", VideoSpec(**facts, settings=settings)) as writer:
            for start in range(0, len(frames), 5):
                writer.write(frames[start : start + 5])
        return tmp_path / name

    return write


@pytest.fixture
def read():
    def read(path, size=(8, 8), fps=8, **limits):
        spec = ReadSpec(size=size, fps=Fraction(fps), **limits)
        return np.concatenate(list(read_frames(path, spec)))

    return read


@pytest.fixture
def psnr():
    """Peak signal-to-noise ratio in dB."""

    def psnr(a, b):
        error = np.mean((a.astype(np.float64) - b) ** 2)
        return float(10 * np.log10(255**2 / max(error, 1e-9)))

    return psnr
