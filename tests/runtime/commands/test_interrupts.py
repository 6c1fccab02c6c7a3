"""What stays, and what is printed, when a run ends before its end."""

import shlex
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lvdm_engines.errors import BundleError, DeviceMemoryError, SessionError, VideoError
from lvdm_rt import cli
from lvdm_rt.commands import generate as job
from lvdm_rt.video import VideoSpec, open_writer, writer

STAGES = ("flags", "open", "condition", "first frames", "last frames", "publish")
FLAGS = ("--frames", "40", "--seed", "7", "--exact")


def raiser(error: BaseException):
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def resume(command, err: str) -> int:
    """Run the command that the message ends with."""
    words = shlex.split(err.strip().splitlines()[-1].split("continue with: ")[1])
    assert words[0] == "lvdm-rt"
    return command(*words[1:])[0]


@pytest.fixture
def whole(command, toy, tmp_path) -> bytes:
    """The bytes of the video that nothing interrupted."""
    assert command("generate", "-o", "sky.npz", "--bundle", toy, *FLAGS)[0] == 0
    data = (tmp_path / "sky.npz").read_bytes()
    (tmp_path / "sky.npz").unlink()
    (tmp_path / "sky.npz.json").unlink()
    return data


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_at_each_stage_keeps_what_is_finished_and_says_how_to_go_on(
    command, toy, tmp_path, whole, monkeypatch, stage
):
    stop = raiser(KeyboardInterrupt())
    calls = 0
    plain_write = writer.VideoWriter.write

    def stop_late(self: writer.VideoWriter, frames: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        if self.count + len(frames) == 40:
            stop()
        plain_write(self, frames)

    with monkeypatch.context() as patch:
        if stage == "flags":
            patch.setattr(cli, "settled", stop)
        elif stage == "open":
            patch.setattr(job.Pipeline, "open", stop)
        elif stage == "condition":
            patch.setattr(job, "_given", stop)
        elif stage == "first frames":
            patch.setattr(writer.VideoWriter, "write", stop)
        elif stage == "last frames":
            patch.setattr(writer.VideoWriter, "write", stop_late)
        else:
            patch.setattr(writer, "write_sidecar", stop)
        code, out, err = command("generate", "-o", "sky.npz", "--bundle", toy, *FLAGS)
    assert (code, out) == (130, "")
    left = [path.name for path in tmp_path.iterdir()]
    if stage in {"flags", "open", "condition"}:
        assert err == "lvdm-rt: interrupted; nothing was finished yet\n"
        assert left == []
        return
    assert left == [".sky.npz.work"]
    assert resume(command, err) == 0
    assert (tmp_path / "sky.npz").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sky.npz", "sky.npz.json"]


def test_an_interrupt_before_a_run_goes_on_says_that_the_rest_is_kept(command, toy, monkeypatch):
    flags = ("generate", "-o", "sky.npz", "--bundle", toy, *FLAGS)
    with monkeypatch.context() as patch:
        patch.setattr(writer.VideoWriter, "write", raiser(KeyboardInterrupt()))
        assert "finished clips are kept; continue with: " in command(*flags)[2]
    with monkeypatch.context() as patch:
        patch.setattr(job.Pipeline, "open", raiser(KeyboardInterrupt()))
        code, _, err = command(*flags, "--resume")
    assert (code, err) == (130, "lvdm-rt: interrupted; what was there is kept\n")
    with monkeypatch.context() as patch:  # the video is written, its clips are still there
        patch.setattr(job.workdir, "remove", raiser(KeyboardInterrupt()))
        code, _, err = command(*flags, "--resume")
    assert (code, err) == (130, "lvdm-rt: interrupted; what was there is kept\n")


@pytest.mark.parametrize(("name", "there"), [("sky.npz", False), ("sky", False), ("sky", True)])
@pytest.mark.parametrize("renames", [1, 2])
def test_a_run_that_ends_between_two_renames_resumes(
    command, toy, tmp_path, monkeypatch, name, there, renames
):
    if there:
        (tmp_path / name).mkdir()
    flags = ("-o", name, "--bundle", toy, "--frames", "8")
    plain_replace, done = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        plain_replace(self, target)
        if target.name.startswith("sky"):
            done.append(target)
            if len(done) == renames:
                raise KeyboardInterrupt
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        code, _, err = command("generate", *flags)
    assert code == 130
    assert len(done) == renames
    assert resume(command, err) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.json"]


def test_a_new_sidecar_never_stands_beside_an_old_video(command, toy, tmp_path, monkeypatch):
    flags = ("generate", "-o", "sky.npz", "--bundle", toy, "--frames", "8")
    assert command(*flags, "--seed", "1")[0] == 0
    old = (tmp_path / "sky.npz").read_bytes()
    renamed, plain_replace = [], Path.replace

    def replace(self: Path, target: Path) -> Path:
        renamed.append(target.name)
        return plain_replace(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert command(*flags, "--seed", "2", "--force")[0] == 0
    assert renamed[-2:] == ["sky.npz", "sky.npz.json"]
    assert (tmp_path / "sky.npz").read_bytes() != old


def test_a_full_disk_keeps_the_latents_and_says_how_to_go_on(
    command, toy, tmp_path, whole, monkeypatch
):
    full = raiser(VideoError("cannot write sky.npz: the disk is full; free some space"))
    with monkeypatch.context() as patch:
        patch.setattr(writer.VideoWriter, "write", full)
        code, _, err = command("generate", "-o", "sky.npz", "--bundle", toy, *FLAGS)
    assert code == 1
    assert err.startswith("lvdm-rt: cannot write sky.npz: the disk is full; free some space; ")
    assert len(err.splitlines()) == 1
    assert resume(command, err) == 0
    assert (tmp_path / "sky.npz").read_bytes() == whole


def test_resume_does_not_write_finished_videos_again(command, toy, tmp_path, monkeypatch):
    flags = ("-o", "sky/", "--bundle", toy, *FLAGS, "--videos", "2", "--batch-size", "1")
    plain_write = writer.VideoWriter.write
    stop = raiser(KeyboardInterrupt())

    def stop_in_second(self: writer.VideoWriter, frames: np.ndarray) -> None:
        if "sky-001" in self._out:
            stop()
        plain_write(self, frames)

    with monkeypatch.context() as patch:
        patch.setattr(writer.VideoWriter, "write", stop_in_second)
        code, _, err = command("generate", *flags)
    assert code == 130
    first = tmp_path / "sky-000" / "000000.png"
    written = first.stat().st_mtime_ns
    assert resume(command, err) == 0
    assert first.stat().st_mtime_ns == written
    assert len(list((tmp_path / "sky-001").iterdir())) == 40


def test_resume_with_other_settings_is_refused(command, toy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(writer.VideoWriter, "write", raiser(KeyboardInterrupt()))
        command("generate", "-o", "sky.npz", "--bundle", toy, *FLAGS)
    changed = ("--frames", "40", "--seed", "8", "--exact", "--resume")
    code, _, err = command("generate", "-o", "sky.npz", "--bundle", toy, *changed)
    assert code == 1
    assert "seed" in err
    assert Path(tmp_path / ".sky.npz.work").is_dir()


def test_a_job_that_comes_second_leaves_the_first_alone(command, toy, tmp_path, monkeypatch):
    from lvdm_rt.pipeline import Pipeline

    flags = ("generate", "-o", "sky.npz", "--bundle", toy, "--frames", "8")
    plain, second = Pipeline._run, []

    def start_second(self, *arguments):
        if not second:  # the work directory of the first is open, and still empty
            second.append(None)
            second.append(command(*flags))
        return plain(self, *arguments)

    monkeypatch.setattr(Pipeline, "_run", start_second)
    assert command(*flags)[0] == 0
    code, _, err = second[1]
    assert code == 1
    assert "is in use by another run" in err


def test_what_is_finished_already_leaves_the_clips_of_another_run(
    command, toy, tmp_path, monkeypatch
):
    finished = ("generate", "-o", "sky.npz", "--bundle", toy, *FLAGS)
    assert command(*finished)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(writer.VideoWriter, "write", raiser(KeyboardInterrupt()))
        assert command(*finished, "--seed", "9", "--force")[0] == 130
    clips = sorted((tmp_path / ".sky.npz.work").rglob("*"))
    assert clips
    assert command(*finished, "--resume")[0] == 0
    assert sorted((tmp_path / ".sky.npz.work").rglob("*")) == clips


@pytest.mark.parametrize("change", ["condition", "bundle"])
def test_resume_does_not_take_an_old_video_for_the_new_one(
    command, toy, make_bundle, tmp_path, monkeypatch, change
):
    def given(level: int) -> None:
        spec = VideoSpec(frames=4, size=(16, 16), fps=Fraction(8))
        with open_writer("in.mp4", spec) as out:
            out.write(np.full((4, 16, 16, 3), level, np.uint8))

    given(50)
    bundle = make_bundle(0.5)
    flags = ("generate", "-o", "sky.npz", "--condition", "in.mp4", "--frames", "8")
    flags = (*flags, "--force", "--bundle")
    assert command(*flags, bundle)[0] == 0
    old = (tmp_path / "sky.npz").read_bytes()
    if change == "condition":
        given(200)
    else:
        bundle = toy
    with monkeypatch.context() as patch:
        patch.setattr(writer.VideoWriter, "write", raiser(KeyboardInterrupt()))
        assert command(*flags, bundle)[0] == 130
    assert command(*flags, bundle, "--resume")[0] == 0
    new = (tmp_path / "sky.npz").read_bytes()
    assert new != old


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (SessionError("the engine broke"), True),
        (BundleError("the decoder gives three frames"), False),  # a mended one is another model
        (DeviceMemoryError("out of memory; lower the batch size"), False),
    ],
)
def test_only_what_could_succeed_later_says_how_to_go_on(command, toy, monkeypatch, error, hint):
    monkeypatch.setattr(writer.VideoWriter, "write", raiser(error))  # after the first clips
    code, _, err = command("generate", "-o", "sky.npz", "--bundle", toy, *FLAGS)
    assert code == 1
    assert ("continue with: " in err) == hint
    assert len(err.splitlines()) == 1
