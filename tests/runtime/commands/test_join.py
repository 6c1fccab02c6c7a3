"""Old and new frames in one file, with the old sound."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from toy_films import film

SMALL = ("--frames", "12", "--seed", "7")


@pytest.mark.parametrize(("name", "sound"), [("a.mp4", "aac"), ("a.webm", "aac"), ("a.mp4", "mp2")])
def test_old_and_new_frames_are_joined_with_the_old_sound(command, toy, tmp_path, name, sound):
    source = "in.mkv" if sound == "mp2" else "in.mp4"
    film(tmp_path / source, seconds=4, sound=sound)
    flags = ("--bundle", toy, "--frames", "16", "--condition", source, "--join")
    code, _, err = command("generate", "-o", name, *flags)
    assert code == 0, err
    with av.open(str(tmp_path / name)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4 * 8 + 16  # 4 seconds at the model's 8 frames per second
    assert frames[0].shape == (16, 16, 3)
    assert frames[0].mean() < 30 < 190 < frames[31].mean()
    with av.open(str(tmp_path / name)) as container:
        heard = list(container.decode(audio=0))
    seconds = sum(frame.samples / frame.sample_rate for frame in heard)
    assert seconds == pytest.approx(4, abs=0.15)
    assert max(float(np.abs(frame.to_ndarray()).max()) for frame in heard) > 0.5
    assert json.loads((tmp_path / f"{name}.json").read_text())["joined_frames"] == 32


def test_a_silent_film_and_a_format_without_sound_are_joined_too(command, toy, tmp_path):
    film(tmp_path / "in.mp4", seconds=2)
    film(tmp_path / "loud.mp4", seconds=2, sound="aac")
    flags = ("--bundle", toy, "--frames", "4", "--join", "--condition")
    assert command("generate", "-o", "a.mp4", *flags, "in.mp4")[0] == 0
    assert command("generate", "-o", "a.npz", *flags, "loud.mp4")[0] == 0
    with np.load(tmp_path / "a.npz") as archive:
        assert len(archive["frames"]) == 2 * 8 + 4


@pytest.mark.parametrize("source", ["in", "in.npz", "in/000000.png"])
def test_what_has_no_sound_is_joined_as_well(command, toy, tmp_path, source):
    plain = ("generate", "--bundle", toy, "--frames", "4")
    assert command(*plain, "-o", "in")[0] == command(*plain, "-o", "in.npz")[0] == 0
    code, _, err = command(*plain, "-o", "a.mp4", "--condition", source, "--join")
    assert code == 0, err
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4 + (1 if "png" in source else 4)


def test_sound_that_begins_late_stays_where_it_is(command, toy, tmp_path):
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("libx264", 10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        tone = container.add_stream("pcm_s16le", rate=48000)
        for _ in range(30):
            pixels = np.full((48, 64, 3), 100, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
        samples = np.full((1, 2 * 48000), 9000, np.int16)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
        frame.rate, frame.pts, frame.time_base = 48000, 48000, Fraction(1, 48000)
        container.mux(tone.encode(frame))
        container.mux(tone.encode())
    flags = ("--bundle", toy, "--frames", "4", "--join", "--condition", "in.mkv")
    assert command("generate", "-o", "a.mp4", *flags)[0] == 0
    with av.open(str(tmp_path / "a.mp4")) as container:
        heard = [f for f in container.decode(audio=0) if float(np.abs(f.to_ndarray()).max()) > 0.1]
    assert float(heard[0].pts * heard[0].time_base) == pytest.approx(1.0, abs=0.05)
