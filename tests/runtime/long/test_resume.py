"""Interrupted runs go on to the same frames."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from unittest.mock import Mock

import numpy as np
import pytest
from msgspec.structs import replace
from toy_arrays import videos_of
from toy_files import with_tests_on_path

from lvdm_engines.errors import OtherRunError, SessionError
from lvdm_rt import GenerateOptions, Pipeline, WorkError
from lvdm_rt.long import workdir

OPTIONS = GenerateOptions(frames=100, videos=2, batch_size=2, steps=3)


def run(manifest, sessions, work=None, resume=False, options=OPTIONS, **more):
    with Pipeline(manifest, sessions) as pipeline:
        return videos_of(pipeline, options, work=work, resume=resume, **more)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for video, frames in expected.items():
        np.testing.assert_array_equal(got[video], frames)


@pytest.fixture
def expected(make_fake):
    return run(*make_fake())


def failing(at):
    """A session hook that fails at one call."""

    def hook(call):
        if call == at:
            raise SessionError("pulled the plug")

    return hook


@pytest.mark.parametrize("graph", ["predict", "interpolate", "decoder"])
@pytest.mark.parametrize("call", [1, 2, 5, 8])
def test_a_run_that_failed_anywhere_resumes_to_the_same_frames(make_fake, tmp_path, graph, call):
    manifest, sessions = make_fake()
    for name in ("predict", "interpolate"):
        sessions[name].jitter = True  # so that other batches would give other latents
    whole = run(manifest, sessions)
    sessions[graph].rows.clear()
    sessions[graph].hook = failing(call)
    with pytest.raises(SessionError, match="pulled the plug"):
        run(manifest, sessions, tmp_path)
    sessions[graph].hook = failing(None)
    assert_same(run(manifest, sessions, tmp_path, resume=True), whole)


@pytest.mark.parametrize("taken", [0, 1, 3, 8])
def test_a_run_whose_iterator_was_closed_resumes_to_the_same_frames(
    make_fake, expected, tmp_path, taken
):
    manifest, sessions = make_fake()
    with Pipeline(manifest, sessions) as pipeline:
        stream = pipeline.stream_videos(OPTIONS, work=tmp_path)
        for _ in range(taken):
            next(stream)
        stream.close()
    assert_same(run(manifest, sessions, tmp_path, resume=True), expected)


def test_finished_clips_are_not_sampled_again(make_fake, expected, tmp_path):
    manifest, sessions = make_fake()
    run(manifest, sessions, tmp_path)
    for name in ("predict", "interpolate"):
        sessions[name].hook = failing(len(sessions[name].rows) + 1)
    assert_same(run(manifest, sessions, tmp_path, resume=True), expected)


def test_a_damaged_or_missing_clip_is_made_again(make_fake, expected, tmp_path):
    manifest, sessions = make_fake()
    run(manifest, sessions, tmp_path)
    files = sorted(tmp_path.glob("video-*/*.npy"))
    files[0].write_bytes(files[0].read_bytes()[:-7])
    files[1].write_bytes(b"")
    files[2].unlink()
    with files[3].open("wb") as zipped:
        np.savez(zipped, latents=np.load(files[4]))
    flipped = bytearray(files[4].read_bytes())
    flipped[200] ^= 1  # a bit of a number that stays finite
    files[4].write_bytes(flipped)
    assert_same(run(manifest, sessions, tmp_path, resume=True), expected)


CHILD = """
    import sys
    from pathlib import Path
    from toy_arrays import make_manifest, make_sessions
    from lvdm_rt import GenerateOptions, Pipeline
    manifest = make_manifest()
    sessions = make_sessions(manifest)
    for session in sessions.values():
        session.seconds = 0.002
    options = GenerateOptions(frames=100, videos=2, batch_size=2, steps=3)
    print("ready", flush=True)
    for _ in Pipeline(manifest, sessions).stream_videos(
        options, work=Path(sys.argv[1]), resume=True
    ):
        pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))
def test_a_process_killed_at_random_moments_resumes_to_the_same_frames(
    make_fake, expected, tmp_path, attempt
):
    moments = random.Random(attempt)  # noqa: S311 - any moments will do
    work = tmp_path / "work"
    argv = [sys.executable, "-c", textwrap.dedent(CHILD), str(work)]
    for _ in range(2):
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, env=with_tests_on_path())
        child.stdout.readline()
        time.sleep(moments.uniform(0, 0.2))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert_same(run(*make_fake(), work, resume=True), expected)


def test_a_work_directory_is_not_continued_by_accident(make_fake, tmp_path):
    run(*make_fake(), tmp_path)
    with pytest.raises(WorkError, match="an interrupted run of these settings; --resume goes"):
        run(*make_fake(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 9}, "interrupted run with seed 0, now it is 9"),
        ({"steps": 4}, "interrupted run with steps 3, now it is 4"),
        ({"batch_size": 1}, "interrupted run with batch_size 2, now it is 1"),
        ({"frames": 101}, "interrupted run with frames 100, now it is 101"),
        ({"exact": True}, "interrupted run with exact False, now it is True"),
    ],
)
def test_a_run_with_other_settings_does_not_resume(make_fake, tmp_path, changes, message):
    run(*make_fake(), tmp_path)
    with pytest.raises(WorkError, match=message):
        run(*make_fake(), tmp_path, resume=True, options=replace(OPTIONS, **changes))


def test_a_run_with_another_model_or_condition_does_not_resume(make_fake, tmp_path):
    run(*make_fake(), tmp_path)
    with pytest.raises(WorkError, match="interrupted run with model"):
        run(*make_fake(noise_levels=9), tmp_path, resume=True)
    frames = np.zeros((16, 16, 16, 3), np.uint8)
    with pytest.raises(WorkError, match="interrupted run with condition None"):
        run(*make_fake(), tmp_path, resume=True, condition=frames)


def test_the_frame_rate_may_change_between_runs(make_fake, expected, tmp_path):
    run(*make_fake(), tmp_path)
    options = replace(OPTIONS, fps=30.0)
    assert_same(run(*make_fake(), tmp_path, resume=True, options=options), expected)


def test_a_directory_with_other_files_is_left_alone(make_fake, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(WorkError, match=r"is not a work directory \(it holds holiday.jpg\)"):
        run(*make_fake(), tmp_path, resume=True)


def test_removing_a_work_directory_spares_what_is_not_its_own(make_fake, tmp_path):
    work = tmp_path / "work"
    run(*make_fake(), work)
    (work / "notes.txt").write_text("mine")
    workdir.remove(work)
    assert [path.name for path in work.iterdir()] == ["notes.txt"]
    (work / "notes.txt").unlink()
    run(*make_fake(), work)
    workdir.remove(work)
    assert not work.exists()
    workdir.remove(work)


def test_a_work_directory_in_use_is_neither_shared_nor_removed(make_fake, tmp_path):
    work = tmp_path / "work"
    with Pipeline(*make_fake()) as pipeline:
        stream = pipeline.stream_videos(OPTIONS, work=work)
        next(stream)
        with pytest.raises(WorkError, match="is in use by another run"):
            run(*make_fake(), work, resume=True)
        held = set(work.rglob("*.npy"))
        workdir.remove(work)
        assert set(work.rglob("*.npy")) >= held
        stream.close()
    run(*make_fake(), work, resume=True)
    workdir.remove(work)
    assert not work.exists()


def test_a_full_disk_is_one_clear_error_and_leaves_no_part_of_a_clip(
    make_fake, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(WorkError, match=r"cannot be written: the disk is full; free"):
        run(*make_fake(), tmp_path)
    assert list(tmp_path.glob("video-*/*")) == []
    assert list(tmp_path.glob("video-*/.*")) == []


def test_a_work_directory_that_cannot_be_made_is_one_clear_error(make_fake, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="cannot be written"):
        run(*make_fake(), tmp_path / "file" / "work")


@pytest.mark.parametrize("name", ["notes.txt", "video-000000/notes.txt", "video-000007"])
def test_a_restart_deletes_no_clip_where_something_else_lies(make_fake, tmp_path, name):
    run(*make_fake(), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / name).write_text("mine")
    with pytest.raises(OtherRunError, match=f"it holds {name.partition('/')[0]}"):
        run(*make_fake(), tmp_path, restart=True)
    assert sorted({*tmp_path.rglob("*")} - {tmp_path / name}) == before


def test_a_damaged_identity_is_one_clear_error(make_fake, tmp_path):
    run(*make_fake(), tmp_path)
    for damage in (b"{", b"[]"):
        (tmp_path / "work.json").write_bytes(damage)
        with pytest.raises(WorkError, match="--restart throws the run away"):
            run(*make_fake(), tmp_path, resume=True)


def test_a_run_that_finished_nothing_leaves_no_work_directory(make_fake, tmp_path):
    manifest, sessions = make_fake()
    sessions["predict"].hook = failing(1)
    with pytest.raises(SessionError):
        run(manifest, sessions, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_run_that_comes_second_leaves_the_work_of_the_first_alone(make_fake, tmp_path):
    manifest, sessions = make_fake()

    def start_second(call):
        if call == 1:  # the first run has not finished a clip yet
            with pytest.raises(WorkError, match="is in use by another run"):
                run(*make_fake(), tmp_path / "work")
            assert (tmp_path / "work" / "work.json").exists()

    sessions["predict"].hook = start_second
    run(manifest, sessions, tmp_path / "work")
