"""What is read is what was filmed: its colours, however often, and the way up."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import toy_films

from lvdm_rt.video import ReadSpec, read_frames
from lvdm_tools.data.clip import ClipSpec
from lvdm_tools.data.video_file import read_clip

pytest.importorskip("torch")


def gradient():
    """A picture (64, 64, 3) whose colours change along both sides."""
    y, x = np.mgrid[0:64, 0:64]
    return np.stack([60 + 2.2 * x, 90 + 1.5 * y, 200 - 1.2 * x - 0.6 * y], -1).clip(0, 255)


def shift(frames, expected):
    """Return the mean difference of each colour."""
    return (frames.astype(float) - expected).mean(axis=(0, 1, 2))


@pytest.mark.parametrize("name", ["in.mp4", "in.webm"])
def test_a_video_that_is_written_and_read_ten_times_keeps_its_colours(write, read, name):
    start = gradient().round().astype(np.uint8)
    frames = np.stack([start] * 4)
    for _ in range(10):
        frames = read(write(name, frames), (64, 64))
        colours = shift(frames, start)
        assert abs(colours.mean()) < 0.2
        assert np.abs(colours).max() < 0.6  # which the encoder rounds, now up and now down


@pytest.mark.parametrize("grey", [20, 77, 128, 201])
@pytest.mark.parametrize("name", ["in.mp4", "in.webm", "in.gif"])
def test_a_grey_card_stays_within_a_level_over_ten_rounds(write, read, name, grey):
    frames = np.full((2, 32, 32, 3), grey, np.uint8)
    for _ in range(10):
        frames = read(write(name, frames), (32, 32))
    assert np.abs(frames.astype(int) - grey).max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (96, 96), (64, 32)])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv420p10le", "full range"])
def test_nothing_is_darker_than_the_file_whatever_its_pixels(tmp_path, read, pixels, size):
    path, expected = tmp_path / "card.mkv", []
    full = 219 / 255 if pixels != "full range" else 1.0
    layout = "yuv420p" if full == 1.0 else pixels
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", 8)
        stream.height, stream.width, stream.pix_fmt = 64, 64, layout
        stream.color_range = 2 if full == 1.0 else 1
        for level in (37, 90, 123, 222):  # (Y - 16) / 219 · 255 is no whole number for any
            frame = av.VideoFrame(64, 64, layout)
            deep = 4 if "10" in pixels else 1
            dtype = np.uint16 if deep == 4 else np.uint8
            for number, plane in enumerate(frame.planes):
                value = np.full(
                    plane.buffer_size // dtype().itemsize, deep * (128, level)[not number]
                )
                plane.update(value.astype(dtype).tobytes())
            container.mux(stream.encode(frame))
            expected.append((level - (16 if full < 1 else 0)) / full)
        container.mux(stream.encode())
    frames = read(path, size)
    assert np.abs(frames.mean(axis=(1, 2, 3)) - expected).max() < 0.51  # rounding to whole levels
    assert abs((frames.mean(axis=(1, 2, 3)) - expected).mean()) < 0.3


WAYS = {  # a, b, c, d of a display matrix, and what it makes of a stored picture
    "as stored": ((1, 0, 0, 1), lambda p: p),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside down, mirrored": ((1, 0, 0, -1), lambda p: p[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "a quarter clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "a quarter anticlockwise": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
}


def quarters():
    """A picture (32, 48, 3) whose four corners differ."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = 30, 90, 160, 230
    return pixels


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_lay_down_a_picture_is_read_upright_by_both_readers(tmp_path, read, way):
    (a, b, c, d), seen = WAYS[way]
    path = toy_films.write(tmp_path / "phone.mp4", [quarters()] * 3, "libx264")
    data, one = bytearray(path.read_bytes()), 1 << 16
    at = data.find(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    expected = seen(quarters())
    frame = read(path, expected.shape[:2])[0]
    assert np.abs(frame.astype(int) - expected).mean() < 6
    trained = read_clip(path, 0, ClipSpec(frames=1, size=expected.shape[:2]))[0]
    assert np.array_equal(trained, frame)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_read_as_its_camera_was_held(tmp_path, read, orientation):
    order = [
        "as stored", "mirrored", "half a turn", "upside down, mirrored", "transposed",
        "a quarter clockwise", "transposed the other way", "a quarter anticlockwise",
    ]  # fmt: skip
    path = tmp_path / "photo.jpg"
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("mjpeg", 1)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(quarters(), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode())
    tags = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack(
        "<HHIHHI", 274, 3, 1, orientation, 0, 0
    )
    exif = b"Exif\0\0" + tags
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    expected = WAYS[order[orientation - 1]][1](quarters())
    assert np.abs(read(path, expected.shape[:2])[0].astype(int) - expected).mean() < 8


def test_both_readers_give_wide_pixels_their_shape(tmp_path, read):
    path = toy_films.write(
        tmp_path / "wide.mp4", [quarters()] * 2, "libx264", sample_aspect_ratio=Fraction(2)
    )
    trained = read_clip(path, 0, ClipSpec(frames=1, size=(32, 96)))[0]
    assert np.array_equal(trained, read(path, (32, 96))[0])


def test_the_last_picture_of_a_film_is_the_last_frame_at_any_rate(tmp_path):
    pictures = toy_films.plain([0] * 59 + [255], (32, 32))
    path = toy_films.write(tmp_path / "flash.mp4", pictures, "libx264", rate=60)
    for fps in (8, 25, 60, Fraction(24000, 1001)):
        frames = np.concatenate(list(read_frames(path, ReadSpec(size=(32, 32), fps=Fraction(fps)))))
        assert frames[-1].mean() > 250
        assert frames[:-1].mean() < 5
        assert len(frames) == pytest.approx(float(fps), abs=1)


def test_frames_of_png_name_square_pixels(scene, write):
    data = (write("sky/", scene(1, 16, 16)) / "000000.png").read_bytes()
    at = data.find(b"pHYs")
    assert at == -1 or data[at + 4 : at + 8] == data[at + 8 : at + 12] != bytes(4)
