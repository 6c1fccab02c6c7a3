"""What stays, and what is printed, when a run ends before its end."""

import shlex
from pathlib import Path
from unittest.mock import Mock

import pytest
from toy_files import names
from toy_films import plain, write

from lvdm_engines.errors import BundleError, DeviceMemoryError, SessionError, VideoError
from lvdm_rt import cli
from lvdm_rt.commands import making as job
from lvdm_rt.video import publishing, writer

STOP = Mock(side_effect=KeyboardInterrupt)
FLAGS = ("sky.npz", "--frames", "40", "--exact")


@pytest.fixture
def resume(command):
    """Run the command that a message ends with."""

    def resume(err):
        words = shlex.split(err.strip().splitlines()[-1].split("continue with: ")[1])
        assert words[0] == "lvdm-rt"
        assert command(*words[1:])[0] == 0

    return resume


@pytest.fixture
def whole(generate, tmp_path):
    """The bytes of the video that nothing interrupted."""
    generate(*FLAGS)
    data = (tmp_path / "sky.npz").read_bytes()
    (tmp_path / "sky.npz").unlink()
    (tmp_path / "sky.npz.json").unlink()
    return data


def stop_late(self, frames):
    if self.count + len(frames) == 40:
        raise KeyboardInterrupt
    PLAIN_WRITE(self, frames)


PLAIN_WRITE = writer.VideoWriter.write
STAGES = {
    "flags": (cli, "settled", STOP),
    "open": (job.Pipeline, "open", STOP),
    "condition": (job, "_given", STOP),
    "first frames": (writer.VideoWriter, "write", STOP),
    "last frames": (writer.VideoWriter, "write", stop_late),
    "publish": (publishing, "write_sidecar", STOP),
}


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_at_each_stage_keeps_what_is_finished_and_says_how_to_go_on(
    generate, resume, tmp_path, whole, monkeypatch, stage
):
    with monkeypatch.context() as patch:
        patch.setattr(*STAGES[stage])
        err = generate(*FLAGS, code=130)
    if stage in {"flags", "open", "condition"}:
        assert err == "lvdm-rt: interrupted; nothing was finished yet\n"
        assert names(tmp_path) == []
        return
    assert names(tmp_path) == [".sky.npz.work"]
    resume(err)
    assert (tmp_path / "sky.npz").read_bytes() == whole
    assert names(tmp_path) == ["sky.npz", "sky.npz.json"]


@pytest.mark.parametrize(
    "place",
    # in the second the video is written, its clips are still there
    [(job.Pipeline, "open"), (job.workdir, "remove")],
    ids=["open", "remove"],
)
def test_an_interrupt_before_a_run_goes_on_says_that_the_rest_is_kept(
    generate, stopped, monkeypatch, place
):
    assert "finished clips are kept; continue with: " in stopped(*FLAGS)
    monkeypatch.setattr(*place, STOP)
    told = generate(*FLAGS, "--resume", code=130)
    assert told == "lvdm-rt: interrupted; what was there is kept\n"


@pytest.mark.parametrize(("name", "there"), [("sky.npz", False), ("sky", False), ("sky", True)])
@pytest.mark.parametrize("renames", [1, 2])
def test_a_run_that_ends_between_two_renames_resumes(
    generate, resume, tmp_path, monkeypatch, name, there, renames
):
    if there:
        (tmp_path / name).mkdir()
    plain_replace, done = Path.replace, []

    def replace(self, target):
        plain_replace(self, target)
        if target.name.startswith("sky"):
            done.append(target)
            if len(done) == renames:
                raise KeyboardInterrupt
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        err = generate(name, "--frames", "8", code=130)
    assert len(done) == renames
    resume(err)
    assert names(tmp_path) == [name, f"{name}.json"]


def test_a_new_sidecar_never_stands_beside_an_old_video(generate, tmp_path, monkeypatch):
    generate("sky.npz")
    old = (tmp_path / "sky.npz").read_bytes()
    renamed, plain_replace = [], Path.replace

    def replace(self, target):
        renamed.append(target.name)
        return plain_replace(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    generate("sky.npz", "--seed", "2", "--force")
    assert renamed[-2:] == ["sky.npz", "sky.npz.json"]
    assert (tmp_path / "sky.npz").read_bytes() != old


def test_a_full_disk_keeps_the_latents_and_says_how_to_go_on(stopped, resume, tmp_path, whole):
    full = VideoError("cannot write sky.npz: the disk is full; free some space")
    err = stopped(*FLAGS, error=full)
    assert err.startswith("lvdm-rt: cannot write sky.npz: the disk is full; free some space; ")
    assert len(err.splitlines()) == 1
    resume(err)
    assert (tmp_path / "sky.npz").read_bytes() == whole


def test_resume_does_not_write_finished_videos_again(generate, resume, tmp_path, monkeypatch):
    def stop_in_second(self, frames):
        if "sky-001" in self._out:
            raise KeyboardInterrupt
        PLAIN_WRITE(self, frames)

    with monkeypatch.context() as patch:
        patch.setattr(writer.VideoWriter, "write", stop_in_second)
        err = generate("sky/", "--exact", "--videos", "2", "--batch-size", "1", code=130)
    first = tmp_path / "sky-000" / "000000.png"
    written = first.stat().st_mtime_ns
    resume(err)
    assert first.stat().st_mtime_ns == written
    assert len(list((tmp_path / "sky-001").iterdir())) == 12


def test_what_is_finished_already_leaves_the_clips_of_another_run(generate, stopped, tmp_path):
    generate(*FLAGS)
    stopped(*FLAGS, "--seed", "9", "--force")
    clips = sorted((tmp_path / ".sky.npz.work").rglob("*"))
    assert clips
    generate(*FLAGS, "--resume")
    assert sorted((tmp_path / ".sky.npz.work").rglob("*")) == clips


@pytest.mark.parametrize("change", ["condition", "bundle"])
def test_resume_does_not_take_an_old_video_for_the_new_one(
    generate, stopped, make_bundle, toy, tmp_path, change
):
    write(tmp_path / "in.mp4", plain([50] * 4, (16, 16)))
    flags = ("sky.npz", "--condition", "in.mp4", "--frames", "8", "--force")
    bundle = make_bundle(0.5)
    generate(*flags, bundle=bundle)
    old = (tmp_path / "sky.npz").read_bytes()
    if change == "condition":
        write(tmp_path / "in.mp4", plain([200] * 4, (16, 16)))
    else:
        bundle = toy
    stopped(*flags, bundle=bundle)
    generate(*flags, "--resume", bundle=bundle)
    assert (tmp_path / "sky.npz").read_bytes() != old


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (SessionError("the engine broke"), True),
        (BundleError("the decoder gives three frames"), False),  # a mended one is another model
        (DeviceMemoryError("out of memory; lower the batch size"), False),
    ],
)
def test_only_what_could_succeed_later_says_how_to_go_on(stopped, error, hint):
    err = stopped(*FLAGS, error=error)  # after the first clips
    assert ("continue with: " in err) == hint
    assert len(err.splitlines()) == 1
