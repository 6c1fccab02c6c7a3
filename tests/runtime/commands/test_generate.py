import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from lvdm_engines import bundle as bundles
from lvdm_rt import options
from lvdm_rt.commands import outputs

SMALL = ("--frames", "20", "--seed", "7")


def frames_of(path: Path) -> np.ndarray:
    with np.load(path) as archive:
        return archive["frames"]


def count(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("name", ["sky.mp4", "sky.webm", "sky.gif"])
@pytest.mark.parametrize("frames", [1, 3, 21])
def test_a_video_has_exactly_the_asked_frames(command, toy, tmp_path, name, frames):
    code, out, err = command("generate", "-o", name, "--bundle", toy, "--frames", frames)
    assert (code, out) == (0, "")
    assert f"wrote {name} in" in err
    assert count(tmp_path / name) == frames
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.json"]


def test_the_sidecar_and_the_comment_hold_the_settings(command, toy, tmp_path, settings_of):
    command("generate", "-o", "sky.mp4", "--bundle", toy, *SMALL, "--preset", "fast")
    settings = settings_of(tmp_path / "sky.mp4")
    assert settings["bundle"] == "toy"
    assert (settings["frames"], settings["seed"], settings["video"]) == (20, 7, 0)
    assert (settings["sampler"], settings["steps"], settings["fps"]) == ("dpmpp_2m", 6, 8.0)
    with av.open(str(tmp_path / "sky.mp4")) as container:
        assert json.loads(container.metadata["comment"]) | {"file": settings["file"]} == settings


def test_the_asked_rate_is_the_rate_of_the_file(command, toy, tmp_path):
    command("generate", "-o", "sky.mp4", "--bundle", toy, *SMALL, "--fps", "29.97")
    with av.open(str(tmp_path / "sky.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(29.97, rel=1e-4)


def test_frames_go_to_a_directory_of_pictures(command, toy, tmp_path):
    assert command("generate", "-o", "frames/", "--bundle", toy, "--frames", "5")[0] == 0
    assert len(list((tmp_path / "frames").glob("*.png"))) == 5
    assert (tmp_path / "frames.json").exists()


def test_y4m_goes_to_standard_output(start, toy, tmp_path):
    process = start("generate", "-o", "-", "--bundle", toy, "--frames", "5", "-q")
    process.stdout.close()
    reading = start("generate", "-o", "-", "--bundle", toy, "--frames", "5", "-q")
    data = reading.stdout.buffer.read()
    assert (reading.wait(), reading.stderr.read()) == (0, "")
    assert data.startswith(b"YUV4MPEG2 W16 H16 F8:1")
    assert data.count(b"FRAME\n") == 5
    assert process.wait() == 1
    assert (
        process.stderr.read()
        == "lvdm-rt: cannot write to standard output: the program that reads it has stopped\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_only_thing_on_standard_output(command, toy):
    code, out, err = command("generate", "-o", "sky.npz", "--bundle", toy, *SMALL, "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert result["outputs"] == ["sky.npz"]
    assert result["settings"]["seed"] == 7
    assert result["frames_per_second"] > 0


def test_quiet_means_quiet(command, toy):
    assert command("generate", "-o", "sky.npz", "--bundle", toy, *SMALL, "-q") == (0, "", "")


def test_progress_is_drawn_on_a_terminal_only(command, toy, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    flags = ("--bundle", toy, "--frames", "1000", "--steps", "100")  # longer than a redraw
    _, out, err = command("generate", "-o", "sky.npz", *flags)
    assert out == ""
    assert "/1000 frames" in err
    assert "step" in err


def test_several_videos_get_numbers_and_each_equals_it_alone(command, toy, tmp_path, settings_of):
    flags = ("--bundle", toy, *SMALL, "--exact")
    assert command("generate", "-o", "one.npz", *flags)[0] == 0
    assert command("generate", "-o", "all.npz", *flags, "--videos", "3")[0] == 0
    names = sorted(path.name for path in tmp_path.glob("all*.npz"))
    assert names == ["all-000.npz", "all-001.npz", "all-002.npz"]
    first, second = frames_of(tmp_path / names[0]), frames_of(tmp_path / names[1])
    assert np.array_equal(first, frames_of(tmp_path / "one.npz"))
    assert not np.array_equal(first, second)
    assert settings_of(tmp_path / "all-002.npz")["video"] == 2
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_video_file_is_continued(command, toy, tmp_path, settings_of):
    assert command("generate", "-o", "in.gif", "--bundle", toy, *SMALL)[0] == 0
    flags = ("--bundle", toy, *SMALL, "--condition", "in.gif")
    assert command("generate", "-o", "next.npz", *flags)[0] == 0
    assert command("generate", "-o", "free.npz", "--bundle", toy, *SMALL)[0] == 0
    assert len(frames_of(tmp_path / "next.npz")) == 20
    assert not np.array_equal(frames_of(tmp_path / "next.npz"), frames_of(tmp_path / "free.npz"))
    assert settings_of(tmp_path / "next.npz")["condition"] == "in.gif"


def test_one_picture_is_enough_of_a_condition(command, toy, tmp_path):
    assert command("generate", "-o", "in", "--bundle", toy, "--frames", "1")[0] == 0
    flags = ("--bundle", toy, *SMALL, "--condition", "in/000000.png")
    assert command("generate", "-o", "next.npz", *flags)[0] == 0
    assert len(frames_of(tmp_path / "next.npz")) == 20


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode", "short"], "short"),
        (["--preset", "slow"], "slow"),
        (["--guidance", "nan"], "guidance"),
        (["--fps", "0"], "fps"),
        (["--fps", "inf"], "fps"),
        (["--fps", "0.05"], "expected a number from 0.1"),
        (["-o", "x" * 250 + ".mp4"], "File name too long"),
        (["-o", "x" * 300 + ".mp4"], "File name too long"),
        (["--steps", "101"], "steps"),
        (["--eta", "-1"], "eta"),
        (["--noise-level", "50"], "noise_level"),
        (["--frames", str(10**12)], "frames"),
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
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [["--guidance", "-2"], ["--preset", "slow"], ["--prompt", "x"]])
def test_what_the_manifest_can_refuse_is_refused_before_engines_open(command, toy, flags):
    _, _, err = command("generate", "-o", "a.npz", "--bundle", toy, *flags)
    assert err.count("\n") == 1  # and none of which backend runs what


def test_a_condition_that_ends_mid_frame_is_one_line(command, toy, tmp_path):
    command("generate", "-o", "in.mp4", "--bundle", toy, *SMALL)
    data = (tmp_path / "in.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(data[:-40])
    flags = ("--bundle", toy, "--condition", "in.mp4")
    code, _, err = command("generate", "-o", "next.mp4", *flags)
    assert code == 1
    assert "ends or is damaged inside a frame" in err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "in.mp4.json"]


def test_a_model_that_gives_nan_is_named_by_its_stage(command, make_bundle, tmp_path):
    code, _, err = command(
        "generate", "-o", "sky.mp4", "--bundle", make_bundle(float("nan")), *SMALL
    )
    assert code == 1
    assert "predict" in err or "keyframe" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "sky.mp4").exists()


def test_a_changed_graph_is_refused(command, make_bundle, tmp_path):
    bundle = make_bundle()
    (bundle / "predict.onnx").write_bytes(b"damaged")
    code, _, err = command("generate", "-o", "sky.mp4", "--bundle", bundle)
    assert code == 1
    assert "the file is damaged or was replaced" in err
    assert list(tmp_path.iterdir()) == []


def swap_graphs(bundle: Path) -> None:
    """Give predict the file of interpolate, which has another length, and the manifest its hash."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    graphs = manifest["graphs"]
    (bundle / "predict.onnx").write_bytes((bundle / "interpolate.onnx").read_bytes())
    graphs["predict"]["sha256"] = graphs["interpolate"]["sha256"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def cut_manifest(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text[: len(text) // 2])


def add_field(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "colour": "blue"}))


def lose_graph(bundle: Path) -> None:
    (bundle / "decoder.onnx").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap_graphs, "latents"),
        (cut_manifest, "manifest.json"),
        (add_field, "colour"),
        (lose_graph, "decoder.onnx: file is missing"),
    ],
)
def test_a_damaged_bundle_is_one_line(command, make_bundle, tmp_path, damage, message):
    bundle = make_bundle()
    damage(bundle)
    code, out, err = command("generate", "-o", "sky.mp4", "--bundle", bundle)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_vanishes_while_it_is_sampled_changes_nothing(
    command, make_bundle, monkeypatch
):
    bundle = make_bundle()
    write = outputs.VideoWriter.write

    def write_without_bundle(self, frames):
        (bundle / "manifest.json").unlink(missing_ok=True)
        write(self, frames)

    monkeypatch.setattr(outputs.VideoWriter, "write", write_without_bundle)
    code, out, _ = command("generate", "-o", "a.npz", "--bundle", bundle, *SMALL, "--json")
    assert (code, json.loads(out)["backend"]) == (0, "cpu")


def test_a_run_reads_its_bundle_and_settles_its_options_once(command, toy, monkeypatch):
    read, settled = [], []
    load, resolve = bundles._read, options._sampling
    monkeypatch.setattr(bundles, "_read", lambda path: read.append(path) or load(path))
    monkeypatch.setattr(options, "_sampling", lambda *a: settled.append(a[0]) or resolve(*a))
    assert command("generate", "-o", "a.npz", "--bundle", toy, *SMALL)[0] == 0
    assert (len(read), [asked.steps is None for asked in settled].count(True)) == (1, 1)
