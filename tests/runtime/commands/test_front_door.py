"""What a person can ask of `generate` beside a video: replace it, resume it, tell me."""

import json
from fractions import Fraction

import numpy as np
import pytest
from toy_films import film

import lvdm_rt
from lvdm_engines.errors import SessionError, WorkError
from lvdm_rt.video import VideoSpec, open_writer

SMALL = ("--frames", "12", "--seed", "7")


def frames_of(path):
    with np.load(path) as archive:
        return archive["frames"]


def test_what_exists_is_replaced_only_with_force(command, toy, tmp_path, monkeypatch):
    flags = ("generate", "-o", "sky.npz", "--bundle", toy, *SMALL)
    assert command(*flags)[0] == 0
    before = (tmp_path / "sky.npz").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(lvdm_rt.Pipeline, "open", None)  # it is refused before
        code, _, err = command(*flags[:-1], "8")
    assert code == 1
    assert "sky.npz: it exists; --force replaces it" in err
    assert (tmp_path / "sky.npz").read_bytes() == before
    assert command(*flags[:-1], "8", "--force")[0] == 0
    assert (tmp_path / "sky.npz").read_bytes() != before


def test_a_folder_that_is_named_like_a_frame_is_none(command, toy, tmp_path):
    flags = ("generate", "-o", "sky", "--bundle", toy, "--frames", "4", "--force")
    assert command(*flags)[0] == 0
    (tmp_path / "sky" / "000099.png").mkdir()
    (tmp_path / "sky" / "000099.png" / "thesis.txt").write_text("mine")
    code, _, err = command(*flags)
    assert (code, "it holds 000099.png, which is no frame" in err) == (1, True)
    assert (tmp_path / "sky" / "000099.png" / "thesis.txt").exists()


def test_force_replaces_frames_but_no_folder_of_somebody_else(command, toy, tmp_path):
    flags = ("generate", "-o", "sky", "--bundle", toy, "--frames", "4", "--force")
    assert command(*flags)[0] == command(*flags)[0] == 0
    assert len(list((tmp_path / "sky").iterdir())) == 4
    (tmp_path / "sky" / "holiday.jpg").write_bytes(b"mine")
    code, _, err = command(*flags)
    assert code == 1
    assert "it holds holiday.jpg, which is no frame" in err
    assert (tmp_path / "sky" / "holiday.jpg").read_bytes() == b"mine"


def test_a_file_with_the_name_of_a_sidecar_is_not_overwritten(command, toy, tmp_path):
    (tmp_path / "sky.npz.json").write_text('{"mine": 1}')
    code, _, err = command("generate", "-o", "sky.npz", "--bundle", toy, *SMALL, "--force")
    assert code == 1
    assert "sky.npz.json exists and holds no settings of a video" in err
    assert (tmp_path / "sky.npz.json").read_text() == '{"mine": 1}'


def test_the_video_that_is_continued_is_never_the_output(command, toy, tmp_path):
    film(tmp_path / "in.mp4")
    before = (tmp_path / "in.mp4").read_bytes()
    flags = ("generate", "-o", "in.mp4", "--condition", "in.mp4", "--bundle", toy, "--force")
    code, _, err = command(*flags)
    assert code == 1
    assert "in.mp4 is or holds what is continued; choose another OUT" in err
    assert (tmp_path / "in.mp4").read_bytes() == before


def test_frame_folders_and_our_own_files_are_continued(command, toy, tmp_path):
    plain = ("generate", "--bundle", toy, *SMALL)
    assert command(*plain, "-o", "in.npz")[0] == 0
    assert command(*plain, "-o", "in")[0] == 0
    for source, out in (("in.npz", "a.npz"), ("in", "b.npz")):
        assert command(*plain, "-o", out, "--condition", source)[0] == 0
    assert np.array_equal(frames_of(tmp_path / "a.npz"), frames_of(tmp_path / "b.npz"))


def test_videos_can_be_shared_out_between_runs(command, toy, tmp_path):
    flags = ("--bundle", toy, *SMALL, "--exact")
    assert command("generate", "-o", "all.npz", *flags, "--videos", "3")[0] == 0
    assert command("generate", "-o", "one.npz", *flags, "--first-video", "2")[0] == 0
    assert np.array_equal(frames_of(tmp_path / "all-002.npz"), frames_of(tmp_path / "one.npz"))


def test_crf_sets_the_quality_of_what_has_one(command, toy, tmp_path):
    flags = ("--bundle", toy, *SMALL)
    for crf in ("5", "50"):
        assert command("generate", "-o", f"{crf}.mp4", *flags, "--crf", crf)[0] == 0
    assert (tmp_path / "5.mp4").stat().st_size > (tmp_path / "50.mp4").stat().st_size
    assert command("generate", "-o", "a.gif", *flags, "--crf", "5")[0] == 2


def test_progress_is_told_as_events(command, toy):
    flags = ("--bundle", toy, "--frames", "40", "-q", "--progress", "json")
    code, out, err = command("generate", "-o", "a.npz", *flags)
    events = [json.loads(line) for line in err.splitlines()]
    assert (code, out) == (0, "")
    assert [events[0]["event"], events[-1]["event"]] == ["start", "done"]
    assert events[-1]["outputs"] == ["a.npz"]
    code, _, err = command("generate", "-o", "a.npz", *flags)
    assert json.loads(err.splitlines()[-1])["kind"] == "OptionsError"


def test_progress_lines_come_now_and_then(command, toy, monkeypatch):
    monkeypatch.setattr("lvdm_rt.commands.telling._SECONDS_BETWEEN", {"lines": 0.0, "json": 0.0})
    _, _, err = command("generate", "-o", "a.npz", "--bundle", toy, *SMALL)
    assert "lvdm-rt: step " in err
    assert "of 12 frames, about " in err


def test_restart_throws_away_what_another_run_left(command, toy, tmp_path):
    work = tmp_path / ".sky.npz.work"
    plain = ("generate", "-o", "sky.npz", "--bundle", toy)
    stopped = json.dumps({"frames": 99})
    (work / "video-000000").mkdir(parents=True)
    (work / "work.json").write_text(stopped)
    (work / "video-000000" / "predict-000000.npy").write_bytes(b"old")
    code, _, err = command(*plain, *SMALL)
    assert code == 1
    assert "holds an interrupted run with " in err
    assert "continue with" not in err  # that could only fail
    assert command(*plain, *SMALL, "--restart")[0] == 0
    assert not work.exists()


def test_a_run_of_the_same_settings_says_resume_or_restart(command, toy, tmp_path, monkeypatch):
    from lvdm_rt.commands import outputs

    flags = ("generate", "-o", "sky.npz", "--bundle", toy, *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(outputs.VideoWriter, "write", lambda *a: (_ for _ in ()).throw(OSError(5)))
        command(*flags)
    code, _, err = command(*flags)
    assert code == 1
    assert "--resume goes on with it, --restart throws it away" in err
    assert command(*flags, "--resume")[0] == 0


def test_a_negative_guidance_is_refused(command, toy):
    code, _, err = command("generate", "-o", "a.npz", "--bundle", toy, "--guidance", "-2")
    assert (code, "expected a number from 0 (off) to 1000" in err) == (1, True)


def test_threads_and_overlap_reach_the_run(command, toy, settings_of, tmp_path):
    flags = ("--bundle", toy, *SMALL, "--threads", "1", "--overlap", "1")
    assert command("generate", "-o", "a.npz", *flags)[0] == 0
    assert settings_of(tmp_path / "a.npz")["overlap"] == 1


def test_the_writer_refuses_a_quality_that_a_format_has_not(tmp_path):
    spec = VideoSpec(frames=1, size=(8, 8), fps=Fraction(8), crf=10)
    with pytest.raises(lvdm_rt.LvdmError, match="got crf 10"):
        open_writer(str(tmp_path / "a.gif"), spec)


def test_the_library_names_its_version_and_what_it_has():
    assert lvdm_rt.__version__ == "0.1.0"
    shown = {name for name in dir(lvdm_rt) if not name.startswith("__")}
    assert shown == set(lvdm_rt.__all__)
    assert "__version__" in dir(lvdm_rt)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, empty])
def test_a_damaged_video_does_not_count_as_done(command, toy, tmp_path, damage):
    flags = ("generate", "-o", "sky.npz", "--bundle", toy, *SMALL, "--resume")
    assert command(*flags)[0] == 0
    whole = (tmp_path / "sky.npz").read_bytes()
    damage(tmp_path / "sky.npz")
    code, _, err = command(*flags)
    assert (code, "it exists; --force replaces it" in err) == (1, True)
    assert command(*flags, "--force")[0] == 0
    assert (tmp_path / "sky.npz").read_bytes() == whole


def test_missing_pictures_do_not_count_as_done(command, toy, tmp_path):
    flags = ("generate", "-o", "sky", "--bundle", toy, "--frames", "4", "--resume")
    assert command(*flags)[0] == 0
    (tmp_path / "sky" / "000003.png").unlink()
    assert command(*flags)[0] == 1
    assert command(*flags, "--force")[0] == 0
    assert len(list((tmp_path / "sky").iterdir())) == 4


def test_a_finished_job_is_not_sampled_again(command, toy, tmp_path, monkeypatch):
    flags = ("generate", "-o", "sky.npz", "--bundle", toy, *SMALL, "--videos", "2", "--resume")
    assert command(*flags)[0] == 0
    monkeypatch.setattr(lvdm_rt.Pipeline, "stream_videos", None)
    code, out, _ = command(*flags, "--json")
    assert (code, json.loads(out)["outputs"]) == (0, ["sky-000.npz", "sky-001.npz"])


def test_a_picture_under_another_name_is_no_finished_video(command, toy, tmp_path):
    flags = ("generate", "-o", "co", "--bundle", toy, "--frames", "3", "-q")
    assert command(*flags)[0] == 0
    whole = (tmp_path / "co" / "000002.png").rename(tmp_path / "co" / "000003.png").read_bytes()
    assert command(*flags, "--resume", "--force")[0] == 0
    assert (tmp_path / "co" / "000002.png").read_bytes() == whole
    assert len(list((tmp_path / "co").iterdir())) == 3


def test_what_is_continued_is_not_in_the_output(command, toy, tmp_path):
    assert command("generate", "-o", "co", "--bundle", toy, "--frames", "2")[0] == 0
    flags = ("generate", "--bundle", toy, "--condition", "co/000000.png", "-o", "co", "--force")
    code, _, err = command(*flags)
    assert (code, "co is or holds what is continued" in err) == (1, True)
    assert len(list((tmp_path / "co").iterdir())) == 2


def test_pictures_of_somebody_else_are_never_replaced(command, toy, tmp_path):
    assert command("generate", "-o", "co", "--bundle", toy, "--frames", "2")[0] == 0
    (tmp_path / "co.json").unlink()
    code, _, err = command("generate", "-o", "co", "--bundle", toy, *SMALL, "--force")
    assert (code, "pictures that are not of this program" in err) == (1, True)
    assert len(list((tmp_path / "co").iterdir())) == 2


def test_only_a_run_of_these_settings_can_be_gone_on_with(command, toy, monkeypatch):
    def raising(error):
        return lambda *_, **__: (_ for _ in ()).throw(error)

    flags = ("generate", "-o", "sky.npz", "--bundle", toy, *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(
            "lvdm_rt.commands.outputs.VideoWriter.write", raising(SessionError("it broke"))
        )
        assert "continue with: lvdm-rt generate" in command(*flags)[2]
    monkeypatch.setattr("lvdm_rt.pipeline.WorkDir", raising(WorkError("the disk is full")))
    code, _, err = command(*flags, "--seed", "8")
    assert (code, err) == (1, "lvdm-rt: the disk is full\n")


def test_the_settings_of_a_video_that_was_moved_away_are_not_replaced(command, toy, tmp_path):
    flags = ("generate", "-o", "sky.npz", "--bundle", toy, *SMALL)
    assert command(*flags)[0] == 0
    told = (tmp_path / "sky.npz.json").read_bytes()
    (tmp_path / "sky.npz").rename(tmp_path / "first.npz")
    code, _, err = command(*flags, "--seed", "8")
    assert (code, "sky.npz.json exists and tells of another video" in err) == (1, True)
    assert (tmp_path / "sky.npz.json").read_bytes() == told
    assert command(*flags)[0] == 0  # the same video again, as after a kill between the two files
    assert (tmp_path / "sky.npz").read_bytes() == (tmp_path / "first.npz").read_bytes()
    (tmp_path / "sky.npz").unlink()
    assert command(*flags, "--seed", "8", "--force")[0] == 0


def test_the_settings_of_pictures_that_were_moved_away_are_not_replaced(command, toy, tmp_path):
    flags = ("generate", "-o", "sky", "--bundle", toy, *SMALL)
    assert command(*flags)[0] == 0
    told = (tmp_path / "sky.json").read_bytes()
    for picture in (tmp_path / "sky").iterdir():
        picture.unlink()
    code, _, err = command(*flags, "--seed", "8")
    assert (code, "sky.json exists and tells of another video" in err) == (1, True)
    assert (tmp_path / "sky.json").read_bytes() == told


def test_what_comes_to_out_meanwhile_is_kept_and_so_are_the_clips(
    command, toy, tmp_path, monkeypatch
):
    from lvdm_rt.commands import outputs

    write = outputs.VideoWriter.write

    def taken(writer, frames):
        (tmp_path / "sky.npz").write_bytes(b"mine")
        write(writer, frames)

    flags = ("generate", "-o", "sky.npz", "--bundle", toy, *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(outputs.VideoWriter, "write", taken)
        code, _, err = command(*flags)
    assert (code, (tmp_path / "sky.npz").read_bytes()) == (1, b"mine")
    assert "sky.npz was taken meanwhile; move it away; finished clips are kept" in err
    (tmp_path / "sky.npz").unlink()
    assert command(*flags, "--resume")[0] == 0
