"""What stays, and what is printed, when a run ends before its end."""

import shlex
import signal
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lvdm_engines.errors import DeviceMemoryError, SessionError, VideoError
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
            patch.setattr(writer, "_publish", stop)
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


@pytest.mark.parametrize("name", ["sky.npz", "sky"])
@pytest.mark.parametrize("renames", [1, 2])
def test_a_run_that_ends_between_two_renames_resumes(
    command, toy, tmp_path, monkeypatch, name, renames
):
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


def wait_for_files(process, work, count):
    """Wait until a run has put more than `count` files into its work directory."""
    deadline = time.monotonic() + 30
    while not (work.is_dir() and len(list(work.rglob("*"))) > count):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_running_process_ends_it_cleanly(start, command, toy, tmp_path, kind):
    flags = ("--bundle", toy, "--frames", "600", "--sampler", "ddpm", "--exact", "--seed", "3")
    process = start("generate", "-o", "sky.npz", *flags)
    wait_for_files(process, tmp_path / ".sky.npz.work", 3)
    process.send_signal(kind)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    opened, told = err.splitlines()
    assert opened.startswith("lvdm-rt: all graphs run on cpu")
    assert not (tmp_path / "sky.npz").exists()
    assert resume(command, told) == 0
    resumed = (tmp_path / "sky.npz").read_bytes()
    assert command("generate", "-o", "sky.npz", *flags, "--force")[0] == 0
    assert (tmp_path / "sky.npz").read_bytes() == resumed


def pressed(process, times):
    """Press Ctrl-C until the run ends as it should, and return what it says."""
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (130, "", 1)
    return err


@pytest.mark.parametrize("presses", [2, 20])
def test_pressing_again_and_again_ends_no_less_cleanly(start, toy, tmp_path, presses):
    flags = ("--bundle", toy, "--frames", "600", "--sampler", "ddpm", "--seed", "3", "-q")
    process = start("generate", "-o", "sky.npz", *flags)
    wait_for_files(process, tmp_path / ".sky.npz.work", 3)
    err = pressed(process, presses)
    assert "continue with: lvdm-rt generate" in err


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a process has loaded")
@pytest.mark.parametrize("library", ["_multiarray_umath", "libavcodec", "onnxruntime_pybind11"])
def test_pressing_while_it_starts_is_neither_lost_nor_called_a_broken_installation(
    start, toy, tmp_path, library
):
    process = start("generate", "-o", "sky.npz", "--bundle", toy, "--frames", "90000", "-q")
    while library not in Path(f"/proc/{process.pid}/maps").read_text("utf-8"):
        assert process.poll() is None, process.communicate()
    assert pressed(process, 3).startswith("lvdm-rt: interrupted; ")
    assert not (tmp_path / "sky.npz").exists()


def test_a_killed_run_resumes_to_the_identical_file(start, command, toy, tmp_path):
    flags = ("-o", "sky.npz", "--bundle", toy, "--frames", "600", "--sampler", "ddpm", "--exact")
    process = start("generate", *flags)
    wait_for_files(process, tmp_path / ".sky.npz.work", 5)
    process.kill()
    process.communicate()
    code, _, err = command("generate", *flags)
    assert code == 1
    assert "resume" in err
    assert command("generate", *flags, "--resume")[0] == 0
    resumed = (tmp_path / "sky.npz").read_bytes()
    assert command("generate", *flags, "--force")[0] == 0
    assert (tmp_path / "sky.npz").read_bytes() == resumed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sky.npz", "sky.npz.json"]


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
        if "sky-001" in str(self._path):
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
        (DeviceMemoryError("out of memory; lower the batch size"), False),
    ],
)
def test_only_what_could_succeed_later_says_how_to_go_on(command, toy, monkeypatch, error, hint):
    monkeypatch.setattr(writer.VideoWriter, "write", raiser(error))  # after the first clips
    code, _, err = command("generate", "-o", "sky.npz", "--bundle", toy, *FLAGS)
    assert code == 1
    assert ("continue with: " in err) == hint
    assert len(err.splitlines()) == 1
