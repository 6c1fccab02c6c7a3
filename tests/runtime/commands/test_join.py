"""Old and new frames in one file, with the old sound."""

import av
import numpy as np
import pytest
from toy_films import film


def heard(path):
    """The sound of a film: its frames, and each one's loudest sample."""
    with av.open(str(path)) as container:
        return [(f, float(np.abs(f.to_ndarray()).max())) for f in container.decode(audio=0)]


def seen(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(("name", "sound"), [("a.mp4", "aac"), ("a.webm", "aac"), ("a.mp4", "mp2")])
def test_old_and_new_frames_are_joined_with_the_old_sound(
    generate, tmp_path, settings_of, name, sound
):
    source = "in.mkv" if sound == "mp2" else "in.mp4"
    film(tmp_path / source, seconds=4, sound=sound)
    generate(name, "--frames", "16", "--condition", source, "--join")
    frames = seen(tmp_path / name)
    assert len(frames) == 4 * 8 + 16  # 4 seconds at the model's 8 frames per second
    assert frames[0].shape == (16, 16, 3)
    assert frames[0].mean() < 30 < 190 < frames[31].mean()
    tone = heard(tmp_path / name)
    assert sum(f.samples / f.sample_rate for f, _ in tone) == pytest.approx(4, abs=0.15)
    assert max(loudest for _, loudest in tone) > 0.5
    assert settings_of(name)["joined_frames"] == 32


def test_a_silent_film_and_a_format_without_sound_are_joined_too(generate, tmp_path, frames_of):
    film(tmp_path / "in.mp4", seconds=2)
    film(tmp_path / "loud.mp4", seconds=2, sound="aac")
    generate("a.mp4", "--join", "--condition", "in.mp4")
    generate("a.npz", "--join", "--condition", "loud.mp4")
    assert len(frames_of("a.npz")) == 2 * 8 + 12


@pytest.mark.parametrize("source", ["in", "in.npz", "in/000000.png"])
def test_what_has_no_sound_is_joined_as_well(generate, tmp_path, source):
    generate(source.partition("/")[0], "--frames", "4")
    generate("a.mp4", "--frames", "4", "--condition", source, "--join")
    assert len(seen(tmp_path / "a.mp4")) == 4 + (1 if "png" in source else 4)


def test_sound_that_begins_late_stays_where_it_is(generate, tmp_path):
    film(tmp_path / "in.mkv", seconds=3, sound="pcm_s16le", begins=1)
    generate("a.mp4", "--frames", "4", "--join", "--condition", "in.mkv")
    first = next(f for f, loudest in heard(tmp_path / "a.mp4") if loudest > 0.1)
    assert float(first.pts * first.time_base) == pytest.approx(1.0, abs=0.05)
