import json
import sys

import av
import numpy as np
import pytest
from toy_files import names

from lvdm_engines import bundle as bundles
from lvdm_rt import options
from lvdm_rt.commands import outputs


@pytest.mark.parametrize("name", ["sky.mp4", "sky.webm", "sky.gif"])
@pytest.mark.parametrize("frames", [1, 3, 21])
def test_a_video_has_exactly_the_asked_frames(command, toy, tmp_path, name, frames):
    code, out, err = command("generate", "-o", name, "--bundle", toy, "--frames", frames)
    assert (code, out) == (0, "")
    assert f"wrote {name} in" in err
    with av.open(str(tmp_path / name)) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames
    assert names(tmp_path) == [name, f"{name}.json"]


def test_the_sidecar_and_the_comment_hold_the_settings(generate, tmp_path, settings_of):
    generate("sky.mp4", "--preset", "fast")
    settings = settings_of("sky.mp4")
    assert settings["bundle"] == "toy"
    assert (settings["frames"], settings["seed"], settings["video"]) == (12, 7, 0)
    assert (settings["sampler"], settings["steps"], settings["fps"]) == ("dpmpp_2m", 6, 8.0)
    with av.open(str(tmp_path / "sky.mp4")) as container:
        assert json.loads(container.metadata["comment"]) | {"file": settings["file"]} == settings


def test_the_asked_rate_is_the_rate_of_the_file(generate, tmp_path):
    generate("sky.mp4", "--fps", "29.97")
    with av.open(str(tmp_path / "sky.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(29.97, rel=1e-4)


def test_frames_go_to_a_directory_of_pictures(generate, tmp_path):
    generate("frames/", "--frames", "5")
    assert len(list((tmp_path / "frames").glob("*.png"))) == 5
    assert (tmp_path / "frames.json").exists()


def test_y4m_goes_to_standard_output(start, toy, tmp_path):
    flags = ("generate", "-o", "-", "--bundle", toy, "--frames", "5", "-q")
    deaf, reading = start(*flags), start(*flags)
    deaf.stdout.close()
    data = reading.stdout.buffer.read()
    assert (reading.wait(), reading.stderr.read()) == (0, "")
    assert data.startswith(b"YUV4MPEG2 W16 H16 F8:1")
    assert data.count(b"FRAME\n") == 5
    assert deaf.wait() == 1
    told = "cannot write to standard output: the program that reads it has stopped"
    assert deaf.stderr.read() == f"lvdm-rt: {told}\n"
    assert names(tmp_path) == []


def test_json_is_the_only_thing_on_standard_output(command, toy):
    flags = ("--bundle", toy, "--frames", "20", "--seed", "7", "--json")
    code, out, err = command("generate", "-o", "sky.npz", *flags)
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert result["outputs"] == ["sky.npz"]
    assert result["settings"]["seed"] == 7
    assert result["frames_per_second"] > 0


def test_quiet_means_quiet(command, toy):
    flags = ("--bundle", toy, "--frames", "4", "-q")
    assert command("generate", "-o", "sky.npz", *flags) == (0, "", "")


def test_progress_is_drawn_on_a_terminal_only(generate, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    told = generate("sky.npz", "--frames", "400", "--steps", "100")  # longer than a redraw
    assert "/400 frames" in told
    assert "step" in told


def test_several_videos_get_numbers_and_each_equals_it_alone(
    generate, tmp_path, settings_of, frames_of
):
    generate("all.npz", "--exact", "--videos", "3")
    generate("one.npz", "--exact", "--first-video", "2")
    made = ["all-000.npz", "all-001.npz", "all-002.npz", "one.npz"]
    assert names(tmp_path) == sorted([*made, *(f"{name}.json" for name in made)])
    first, second, third, alone = map(frames_of, made)
    assert np.array_equal(third, alone)
    assert not np.array_equal(first, second)
    assert settings_of("all-002.npz")["video"] == 2


def test_a_video_file_is_continued(generate, settings_of, frames_of):
    generate("in.gif")
    generate("next.npz", "--condition", "in.gif")
    generate("free.npz")
    assert len(frames_of("next.npz")) == 12
    assert not np.array_equal(frames_of("next.npz"), frames_of("free.npz"))
    assert settings_of("next.npz")["condition"] == "in.gif"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode", "short"], "short"),
        (["--preset", "slow"], "slow"),
        (["--noise-level", "9999"], "got noise_level 9999, expected"),
        (["-o", "x" * 250 + ".mp4"], "File name too long"),
        (["-o", "x" * 300 + ".mp4"], "File name too long"),
        (["--condition", "none.mp4"], "there is no such file"),
        (["--prompt", "a blue sky"], "prompt"),
        (["--backend", "tensorrt"], "tensorrt"),
        (["-o", "no/such/place.mp4"], "there is no directory"),
        (["--bundle", "nowhere"], "neither a bundle directory nor a built-in bundle"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(command, toy, tmp_path, flags, message):
    code, out, err = command("generate", "-o", "sky.mp4", "--bundle", toy, *flags)
    assert (code, out) == (1, "")
    assert err.startswith("lvdm-rt: ")
    assert message in err
    assert len(err.splitlines()) == 1  # and none of which backend runs what
    assert names(tmp_path) == []


def test_a_bundle_that_vanishes_while_it_is_sampled_changes_nothing(
    generate, make_bundle, monkeypatch
):
    bundle = make_bundle()
    write = outputs.VideoWriter.write

    def write_without_bundle(self, frames):
        (bundle / "manifest.json").unlink(missing_ok=True)
        write(self, frames)

    monkeypatch.setattr(outputs.VideoWriter, "write", write_without_bundle)
    generate("a.npz", bundle=bundle)


def test_a_run_reads_its_bundle_and_settles_its_options_once(generate, monkeypatch):
    read, settled = [], []
    load, resolve = bundles._read, options._sampling
    monkeypatch.setattr(bundles, "_read", lambda path: read.append(path) or load(path))
    monkeypatch.setattr(options, "_sampling", lambda *a: settled.append(a[0]) or resolve(*a))
    generate("a.npz")
    assert (len(read), [asked.steps is None for asked in settled].count(True)) == (1, 1)
