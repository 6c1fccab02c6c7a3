"""Films and pictures to continue, in every container, with bytes changed."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import toy_films
import toy_frames
from fuzz.kind import Kind, Rng, command, outputs
from toy_damage import damage

from lvdm_rt.video import VideoSpec, open_writer

CODECS = {
    "mp4": "libx264", "webm": "libvpx-vp9", "mkv": "ffv1", "avi": "mpeg4", "ts": "libx264",
    "mpg": "mpeg2video", "flv": "libx264", "mov": "prores_ks",
}  # fmt: skip
PIXELS = {"mov": "yuv422p10le"}
OURS = ("gif", "npz")
STILLS = {"png": "rgb24", "jpg": "yuvj420p", "bmp": "bgr24", "webp": "bgra"}
_ENCODERS = {"jpg": "mjpeg", "webp": "libwebp"}


def prepare(folder: Path) -> None:
    """Write the toy bundle, and a short film and a picture of each kind."""
    toy_frames.write_bundle(folder / "toy")
    rng = np.random.default_rng(5)
    pictures = list(rng.integers(0, 256, (8, 48, 64, 3), np.uint8))
    for kind, codec in CODECS.items():
        pixels = PIXELS.get(kind, "yuv420p")
        rate = 25 if kind == "mpg" else 8
        toy_films.write(folder / f"a.{kind}", pictures, codec, rate=rate, pix_fmt=pixels)
    for kind in OURS:
        spec = VideoSpec(frames=8, size=(48, 64), fps=Fraction(8))
        with open_writer(str(folder / f"a.{kind}"), spec) as writer:
            writer.write(np.stack(pictures))
    for kind, layout in STILLS.items():
        with av.open(str(folder / f"a.{kind}"), "w", format="image2") as container:
            stream = container.add_stream(_ENCODERS.get(kind, kind), 1)
            stream.height, stream.width, stream.pix_fmt = 48, 64, layout
            frame = av.VideoFrame.from_ndarray(pictures[0], format="rgb24")
            container.mux(stream.encode(frame.reformat(format=layout)))
            container.mux(stream.encode())


def film(folder: Path, rng: Rng) -> str:
    """Choose a film or a picture, and change it; the others go."""
    names = [f"a.{kind}" for kind in (*CODECS, *OURS, *STILLS)]
    name = names[int(rng.integers(len(names)))]
    for other in names:
        if other != name:
            (folder / other).unlink()
    if rng.random() < 0.15:
        return f"{name}: {damage(folder / name, rng)}"
    path = folder / name
    data = bytearray(path.read_bytes())
    reach = (64, 1000, len(data))[int(rng.integers(3))]
    for place in rng.integers(min(reach, len(data)), size=rng.integers(1, 30)):
        data[place] = int(rng.integers(256))
    path.write_bytes(data)
    return f"{name}: bytes"


def go_on(folder: Path) -> int:
    """Continue the film, and put it before the new frames."""
    (given,) = [*folder.glob("a.*"), Path("a.mp4")][:1]
    before = {path.name for path in folder.iterdir()}
    flags = ("--bundle", "./toy", "--backend", "cpu", "--frames", "8", "-q", "--join")
    code = command(["generate", *flags, "--condition", given.name, "-o", "new.npz"])
    outputs(folder, before, {"new.npz": code == 0, "new.npz.json": code == 0})
    return code


def go_on_quietly(folder: Path) -> int:
    """Continue the film; warnings of what is missing of it are no error's lines."""
    import logging

    logging.disable(logging.WARNING)
    return go_on(folder)


KINDS = (Kind("film", prepare, film, go_on_quietly, daily=16),)
