"""Small films and folders of pictures that tests read."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def film(path, seconds=4, sound=None, begins=0):
    """A film of 10 fps that gets brighter, with a tone from a second on; returns nothing."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        tone = container.add_stream(sound, rate=48000) if sound else None
        for index in range(seconds * 10):
            pixels = np.full((48, 64, 3), min(255, 20 + 5 * index), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
        if tone is not None:
            wave = np.sin(np.arange((seconds - begins) * 48000) * 0.05).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
            frame.rate, frame.pts, frame.time_base = 48000, begins * 48000, Fraction(1, 48000)
            resampler = av.AudioResampler(tone.format, tone.layout, tone.rate, 1024)
            for part in [*resampler.resample(frame), None]:
                container.mux(tone.encode(part))


def write(
    path, pictures, codec="mpeg4", *, times=None, rate=8, options=None, title="", **attributes
):
    """A video of pictures (h, w, 3), shown at their times, in frames, if there are any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        for name, value in {"pix_fmt": "yuv420p", **attributes}.items():
            setattr(stream, name, value)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_video(path: Path, values: list[int]) -> Path:
    """A video of plain grey frames, so that a frame's number can be read from its pixels."""
    return write(path, plain(values, (32, 48)), options={"g": "5", "qscale:v": "2"})


def write_pictures(folder: Path, values: list[int], kind: str = "png") -> Path:
    """A folder of plain grey pictures whose names have no leading zeros."""
    from matplotlib.image import imsave

    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(plain(values, (16, 24)), start=1):
        imsave(folder / f"frame_{number}.{kind}", picture)
    return folder


def plain(values: list[int], size: tuple[int, int]) -> list[np.ndarray]:
    return [np.full((*size, 3), value, np.uint8) for value in values]


def levels(frames: int) -> list[int]:
    return [10 + 12 * (i % 20) for i in range(frames)]
