"""What a person can ask of `generate` beside a video: replace it, resume it, tell me."""

import json
import re

import numpy as np
import pytest
from toy_files import content

import lvdm_rt
from lvdm_engines.errors import SessionError, WorkError
from lvdm_rt.commands import outputs


def test_what_exists_is_replaced_only_with_force(generate, tmp_path, monkeypatch):
    generate("sky.npz")
    before = (tmp_path / "sky.npz").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(lvdm_rt.Pipeline, "open", None)  # it is refused before
        told = generate("sky.npz", "--seed", "8", code=1)
    assert "sky.npz: it exists; --force replaces it" in told
    assert (tmp_path / "sky.npz").read_bytes() == before
    generate("sky.npz", "--seed", "8", "--force")
    assert (tmp_path / "sky.npz").read_bytes() != before


@pytest.mark.parametrize(
    ("out", "flags", "told"),
    [
        ("gone/sky.npz", (), "there is no directory gone; make it first"),
        ("sky.gif", ("--fps", "120"), "ask for at most 100"),
        ("sky.npz", ("--mode", "short"), "mode short needs a short graph"),
    ],
)
def test_what_no_engine_can_change_is_refused_before_one_is_opened(
    generate, monkeypatch, out, flags, told
):
    monkeypatch.setattr(lvdm_rt.Pipeline, "open", None)
    assert told in generate(out, *flags, code=1)


@pytest.mark.parametrize(
    ("out", "theirs", "told"),
    [
        ("sky", "sky/holiday.jpg", "it holds holiday.jpg, which is no frame"),
        ("sky", "sky/000000.png", "pictures that are not of this program"),
        ("sky", "sky/000000.png/thesis.txt", "it holds 000000.png, which is no frame"),
        ("sky.npz", "sky.npz.json", "sky.npz.json exists and holds no settings of a video"),
    ],
)
def test_what_somebody_else_made_is_never_replaced(generate, tmp_path, out, theirs, told):
    (tmp_path / theirs).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / theirs).write_text('{"mine": 1}')
    assert told in generate(out, "--force", code=1)
    assert (tmp_path / theirs).read_text() == '{"mine": 1}'


@pytest.mark.parametrize(("source", "out"), [("in.mp4", "in.mp4"), ("co/000000.png", "co")])
def test_what_is_continued_is_never_in_the_output(generate, tmp_path, source, out):
    generate(out, "--frames", "2")
    before = content(tmp_path)
    told = generate(out, "--condition", source, "--force", code=1)
    assert f"{out} is or holds what is read; choose another OUT" in told
    assert content(tmp_path) == before


def test_frame_folders_and_our_own_files_are_continued(generate, frames_of):
    for source, out in (("in.npz", "a.npz"), ("in", "b.npz")):
        generate(source)
        generate(out, "--condition", source)
    assert np.array_equal(frames_of("a.npz"), frames_of("b.npz"))


def test_crf_sets_the_quality_of_what_has_one(generate, tmp_path):
    for crf in ("5", "50"):
        generate(f"{crf}.mp4", "--crf", crf)
    assert (tmp_path / "5.mp4").stat().st_size > (tmp_path / "50.mp4").stat().st_size
    generate("a.gif", "--crf", "5", code=2)


def test_progress_is_told_as_events(generate):
    flags = ("a.npz", "--frames", "40", "-q", "--progress", "json")
    events = [json.loads(line) for line in generate(*flags).splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "done"]
    assert events[-1]["outputs"] == ["a.npz"]
    assert json.loads(generate(*flags, code=1).splitlines()[-1])["kind"] == "OptionsError"


def test_what_is_logged_between_events_is_one(start, toy):
    pytest.importorskip("openvino")  # whose choice is what is logged
    flags = ("--bundle", toy, "--frames", "12", "--progress", "json")
    process = start("generate", "-o", "a.npz", *flags)
    told = process.communicate(timeout=60)[1].splitlines()
    events = [json.loads(line) for line in told]
    assert [told["event"] for told in events][:2] == ["start", "message"]
    assert any(re.search("encoder runs? on ", told.get("message", "")) for told in events)


def test_progress_lines_come_now_and_then(generate, monkeypatch):
    monkeypatch.setattr("lvdm_rt.commands.telling._SECONDS_BETWEEN", {"lines": 0.001, "json": 0.0})
    told = generate("a.npz")
    assert "lvdm-rt: preparing, for 0 s so far" in told
    assert "lvdm-rt: step " in told
    assert "of 12 frames, about " in told


def test_restart_throws_away_what_another_run_left(generate, tmp_path):
    work = tmp_path / ".sky.npz.work"
    (work / "video-000000").mkdir(parents=True)
    (work / "work.json").write_text(json.dumps({"frames": 99}))
    (work / "video-000000" / "predict-000000.npy").write_bytes(b"old")
    told = generate("sky.npz", code=1)
    assert "holds an interrupted run with " in told
    assert "continue with" not in told  # that could only fail
    generate("sky.npz", "--restart")
    assert not work.exists()


def test_a_run_of_the_same_settings_says_resume_or_restart(generate, stopped):
    stopped("sky.npz", error=OSError(5))
    told = generate("sky.npz", code=1)
    assert "--resume goes on with it, --restart throws it away" in told
    generate("sky.npz", "--resume")


def test_threads_and_overlap_reach_the_run(generate, settings_of):
    generate("a.npz", "--threads", "1", "--overlap", "1")
    assert settings_of("a.npz")["overlap"] == 1


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def lose_a_picture(folder):
    (folder / "000003.png").unlink()


def rename_a_picture(folder):
    (folder / "000003.png").rename(folder / "000004.png")


@pytest.mark.parametrize(
    ("out", "damage"),
    [("sky.npz", cut), ("sky.npz", empty), ("sky", lose_a_picture), ("sky", rename_a_picture)],
)
def test_a_damaged_video_does_not_count_as_done(generate, tmp_path, out, damage):
    flags = (out, "--frames", "4", "--resume")
    generate(*flags)
    whole = content(tmp_path)
    damage(tmp_path / out)
    assert "it exists; --force replaces it" in generate(*flags, code=1)
    generate(*flags, "--force")
    assert content(tmp_path) == whole


def test_a_finished_job_is_not_sampled_again(command, generate, toy, monkeypatch):
    generate("sky.npz", "--videos", "2")
    monkeypatch.setattr(lvdm_rt.Pipeline, "stream_videos", None)
    flags = ("--bundle", toy, "--frames", "12", "--seed", "7", "--videos", "2", "--resume")
    code, out, _ = command("generate", "-o", "sky.npz", *flags, "--json")
    assert (code, json.loads(out)["outputs"]) == (0, ["sky-000.npz", "sky-001.npz"])


def test_only_a_run_of_these_settings_can_be_gone_on_with(generate, stopped, monkeypatch):
    told = stopped("sky.npz", error=SessionError("it broke"))
    assert "continue with: lvdm-rt generate" in told

    def full(*_, **__):
        raise WorkError("the disk is full")

    monkeypatch.setattr("lvdm_rt.running.WorkDir", full)
    assert generate("sky.npz", "--seed", "8", code=1) == "lvdm-rt: the disk is full\n"


@pytest.mark.parametrize("out", ["sky.npz", "sky"])
def test_the_settings_of_a_video_that_was_moved_away_are_not_replaced(generate, tmp_path, out):
    def take_away():
        path = tmp_path / out
        for file in [*path.iterdir()] if path.is_dir() else [path]:
            file.unlink()

    generate(out)
    whole = content(tmp_path)
    take_away()
    told = generate(out, "--seed", "8", code=1)
    assert f"{out}.json exists and tells of another video" in told
    assert (tmp_path / f"{out}.json").read_bytes() == whole[f"{out}.json"]
    generate(out)  # the same video again, as after a kill between the two files
    assert content(tmp_path) == whole
    take_away()
    generate(out, "--seed", "8", "--force")


@pytest.mark.parametrize(
    ("name", "told_of"),
    [("sky.npz", "it exists"), ("sky.npz.json", "sky.npz.json exists and holds no settings")],
)
def test_what_comes_to_out_meanwhile_is_kept_and_so_are_the_clips(
    generate, tmp_path, monkeypatch, name, told_of
):
    write = outputs.VideoWriter.write

    def taken(writer, frames):
        (tmp_path / name).write_bytes(b"mine")
        write(writer, frames)

    with monkeypatch.context() as patch:
        patch.setattr(outputs.VideoWriter, "write", taken)
        told = generate("sky.npz", code=1)
    assert (tmp_path / name).read_bytes() == b"mine"
    assert f"meanwhile it was taken: cannot write sky.npz: {told_of}" in told
    assert "; finished clips are kept" in told
    (tmp_path / name).unlink()
    generate("sky.npz", "--resume")
