"""Files that players show although something is missing, and those that are cut all the same."""

import av
import numpy as np
import pytest
import toy_films

from lvdm_engines.errors import LvdmError, VideoError
from lvdm_rt.video import ReadSpec, read_frames
from lvdm_rt.video.gif_blocks import gif_ending
from lvdm_tools.data.video_file import count_frames

CODECS = {"ts": "libx264", "mpg": "mpeg2video"}
BLACK, WHITE = toy_films.plain([0] * 24, (32, 32)), toy_films.plain([255] * 24, (32, 32))


def shade(frames):
    return frames.mean(axis=(1, 2, 3)).round().astype(int).tolist()


@pytest.mark.parametrize("later", [0, 3600], ids=["starting again", "an hour later"])
@pytest.mark.parametrize("kind", CODECS)
def test_a_recording_that_is_joined_from_two_is_read_to_its_end(
    tmp_path, read, caplog, kind, later
):
    times = [later * 24 + frame for frame in range(24)]
    rate = {"rate": 24, "options": {"bf": "0"}}
    one = toy_films.write(tmp_path / f"black.{kind}", BLACK, CODECS[kind], **rate)
    two = toy_films.write(tmp_path / f"white.{kind}", WHITE, CODECS[kind], times=times, **rate)
    both = tmp_path / f"both.{kind}"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    shades = shade(read(both, (32, 32), 8))
    assert shades[-1] > 250
    assert shades[0] < 5
    assert len(shades) == pytest.approx(16, abs=2)
    assert "time stamps start again" in caplog.text
    assert caplog.text.count("start again") == 1


def test_a_recording_with_a_part_missing_is_read_with_a_word_of_it(tmp_path, read, caplog, scene):
    path = toy_films.write(tmp_path / "a.ts", list(scene(48, 64, 64)), "libx264", rate=24)
    data = path.read_bytes()
    middle = len(data) // 2 // 188 * 188
    path.write_bytes(data[:middle] + data[middle + 188 :])
    assert len(read(path, (64, 64), 24)) > 20
    assert "a part of it is" in caplog.text


def test_an_avi_whose_pictures_lean_on_later_ones_is_read_in_order(tmp_path, read, scene, caplog):
    """AVI says only when pictures are decoded, which is in another order."""
    pictures = [scene(32, 64, 64)[n] // 2 + 3 * n for n in range(32)]
    path = toy_films.write(tmp_path / "a.avi", pictures, "libx264", rate=8)
    expected = [picture.mean() for picture in pictures]
    assert shade(read(path, (64, 64), 8)) == pytest.approx(expected, abs=1.5)
    assert shade(read(path, (64, 64), 4)) == pytest.approx(expected[1::2], abs=1.5)
    assert not caplog.text


GIF_ENDS = {
    "no end mark": lambda data: data[:-1],
    "bytes behind it": lambda data: data + b"appended\n",
    "zeros for an end": lambda data: data[:-1] + bytes(3000),
}


@pytest.mark.parametrize("way", GIF_ENDS)
def test_a_gif_is_read_whatever_follows_its_last_picture(scene, write, read, way, caplog):
    path = write("a.gif", scene(6, 16, 16))
    whole = read(path, (16, 16))
    path.write_bytes(GIF_ENDS[way](path.read_bytes()))
    assert np.array_equal(read(path, (16, 16)), whole)
    assert ("its end mark is missing" in caplog.text) == (way != "bytes behind it")


def test_a_gif_ends_in_a_picture_or_not(scene, write):
    data = write("a.gif", scene(3, 16, 16)).read_bytes()
    path = write("b.gif", scene(1, 16, 16))
    endings = []
    for length in range(14, len(data) + 1):
        path.write_bytes(data[:length])
        endings.append(gif_ending(path))
    assert endings[-1] == "whole"
    assert endings[-2] == "open"
    assert endings.count("open") < 20  # between blocks
    assert set(endings[:-2]) == {"open", "cut"}


def write_with_sound(path, seconds):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", 10, options={"deadline": "realtime"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        tone = container.add_stream("libopus", 48000, layout="mono")
        rng = np.random.default_rng(1)
        for index in range(seconds * 10):
            pixels = rng.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            samples = rng.normal(0, 0.1, (1, 4800)).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(samples, "flt", "mono")
            sound.rate, sound.pts = 48000, index * 4800
            container.mux(tone.encode(sound))
        container.mux(stream.encode())
        container.mux(tone.encode())
    return path


@pytest.mark.parametrize("name", ["a.webm", "a.mkv"])
def test_a_film_with_sound_that_is_cut_is_refused_as_one_without(tmp_path, read, name):
    path = write_with_sound(tmp_path / name, 4)
    assert len(read(path, (48, 64), 10)) == 40
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"it stops after .* it announces"):
        read(path, (48, 64), 10)


def test_an_animated_webp_is_named_as_what_is_not_supported(tmp_path, read):
    path = tmp_path / "a.webp"
    with av.open(str(path), "w", format="webp") as container:
        stream = container.add_stream("libwebp_anim", 8)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "bgra"
        for level in range(4):
            pixels = np.full((16, 16, 4), 60 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgra")))
        container.mux(stream.encode())
    try:
        read(path, (16, 16))
    except VideoError as err:
        assert "an animated WebP, a format that is not supported" in str(err)  # noqa: PT017 - newer FFmpeg reads it


def test_what_is_missing_is_told_once_where_that_is_asked(scene, write, caplog):
    path = write("a.gif", scene(3, 16, 16))
    path.write_bytes(path.read_bytes()[:-1])
    list(read_frames(path, ReadSpec(size=(16, 16), fps=8, warn=False)))
    assert caplog.text == ""


def test_a_film_that_is_cut_in_its_index_is_read_or_refused_in_one_line(tmp_path, read):
    path = toy_films.write(tmp_path / "a.mov", list(BLACK), "mpeg4")
    data, said = path.read_bytes(), ""
    for length in range(len(data) - 900, len(data) - 9, 26):
        path.write_bytes(data[:length])
        for reader in (read, count_frames):
            try:
                reader(path)
            except LvdmError as err:
                said += f"{err}\n"
    assert "has no decoder for its pictures" in said  # where the cut leaves it no name
