"""The same batch again: what is done stays, what is missing is made, what has changed is told."""

import json
import shlex
from unittest.mock import Mock

import numpy as np
import pytest
from toy_files import content, edited

pytest.importorskip("onnx")

from lvdm_engines import lock
from lvdm_rt import Pipeline
from lvdm_rt.long.workdir import WorkDir
from lvdm_rt.video import VideoWriter

LINES = tuple({"seed": seed, "name": f"{seed}"} for seed in range(5))


@pytest.fixture
def whole(batch, write_list, tmp_path):
    """The files of a batch that nothing interrupted."""
    write_list(*LINES)
    batch("list.jsonl", "--exact")
    return content(tmp_path / "out")


def videos(files):
    """Files without the record, in which seconds stand."""
    return {name: data for name, data in files.items() if name != "batch.jsonl"}


def test_what_is_done_is_not_made_again_and_opens_no_engine(
    batch, whole, monkeypatch, tmp_path, records
):
    before = records()
    monkeypatch.setattr(Pipeline, "open", Mock(side_effect=AssertionError))
    _, err = batch("list.jsonl", "--exact", "--batch-size", "3", "--backend", "auto")
    assert err.startswith("lvdm-rt: made 0 of 5 videos in out in ")
    assert err.endswith(" s; 5 were done before, 0 failed\n")
    assert videos(content(tmp_path / "out")) == videos(whole)
    assert records() == before


@pytest.mark.parametrize("lost", ["2.npz", "2.npz.json"])
def test_what_is_missing_alone_is_made(batch, whole, tmp_path, lost, calls):
    (tmp_path / "out" / lost).unlink()
    flags = () if lost == "2.npz" else ("--force",)
    batch("list.jsonl", "--exact", *flags)
    assert calls == [1]
    assert videos(content(tmp_path / "out")) == videos(whole)


def test_more_lines_are_made_beside_those_that_are_done(batch, write_list, whole, tmp_path, calls):
    write_list({"seed": 9}, *LINES[1:], {"seed": 10})
    batch("list.jsonl", "--exact")
    assert calls == [2]
    there = content(tmp_path / "out")
    assert {name: there[name] for name in videos(whole)} == videos(whole)
    assert json.loads(there["batch.jsonl"].splitlines()[0])["name"] == "0.npz"  # of another list


def test_a_job_that_has_changed_is_refused_or_replaced_if_asked(
    batch, write_list, whole, tmp_path, calls, settings_of
):
    write_list({**LINES[0], "seed": 7}, *LINES[1:])
    _, err = batch("list.jsonl", "--exact", code=1)
    assert "line 1, 0.npz: it exists with seed 0, now it is 7; give the job another name" in err
    assert (calls, videos(content(tmp_path / "out"))) == ([], videos(whole))
    batch("list.jsonl", "--exact", "--force")
    assert (calls, settings_of("out/0.npz")["seed"]) == ([1], 7)


def test_a_file_that_is_of_no_batch_is_left_as_it_is(batch, write_list, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0.npz").write_bytes(b"mine")
    write_list(*LINES[:2])
    _, err = batch("list.jsonl", code=1)
    assert "0.npz: it exists and has no settings beside it; move it away" in err
    assert (tmp_path / "out" / "0.npz").read_bytes() == b"mine"
    assert (tmp_path / "out" / "1.npz").exists()


def test_a_damaged_video_is_not_taken_for_done(batch, whole, tmp_path):
    damaged = tmp_path / "out" / "3.npz"
    damaged.write_bytes(bytes(len(whole["3.npz"])))
    assert "3.npz: cannot write out/3.npz: it exists" in batch("list.jsonl", "--exact", code=1)[1]
    batch("list.jsonl", "--exact", "--force")
    assert damaged.read_bytes() == whole["3.npz"]


def test_a_condition_that_has_changed_makes_another_job(
    batch, write_list, command, toy, tmp_path, calls
):
    words = ("generate", "-o", "given.npz", "--bundle", toy, "--frames", "24", "--force")
    assert command(*words)[0] == 0
    write_list({"condition": "given.npz", "name": "a"}, {"name": "b"})
    batch("list.jsonl")
    batch("list.jsonl")
    assert calls == [1, 1]
    assert command(*words, "--seed", "5")[0] == 0
    _, err = batch("list.jsonl", code=1)
    assert "a.npz: it exists and continues what its condition was before" in err
    before = (tmp_path / "out" / "a.npz").read_bytes()
    batch("list.jsonl", "--force")
    assert (tmp_path / "out" / "a.npz").read_bytes() != before


@pytest.mark.parametrize("join", [False, True])
def test_a_condition_that_has_changed_is_told_until_it_is_replaced(
    batch, write_list, command, toy, tmp_path, frames_of, join
):
    words = ("generate", "-o", "given.npz", "--bundle", toy, "--frames", "40")
    assert command(*words)[0] == 0
    write_list({"condition": "given.npz", "join": join, "name": "a"}, {"name": "b"})
    batch("list.jsonl")
    with np.load(tmp_path / "given.npz") as archive:
        held = dict(archive)
    held["frames"] = np.concatenate([255 - held["frames"][:4], held["frames"][4:]])
    np.savez(tmp_path / "given.npz", **held)  # what is continued, the end, is as it was
    before = (tmp_path / "out" / "a.npz").read_bytes()
    for _ in range(3):
        _, err = batch("list.jsonl", code=1)
        assert "a.npz: it exists and continues what its condition was before" in err
    assert (tmp_path / "out" / "a.npz").read_bytes() == before
    batch("list.jsonl", "--force")
    assert ((tmp_path / "out" / "a.npz").read_bytes() != before) == join
    if join:
        np.testing.assert_array_equal(frames_of("out/a.npz")[:40], held["frames"])
    assert "2 were done before" in batch("list.jsonl")[1]


@pytest.mark.parametrize("condition", [{}, {"condition": "given.npz"}])
@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_a_record_that_is_lost_is_made_anew_from_the_videos(
    batch, write_list, command, toy, tmp_path, records, condition, damage
):
    assert command("generate", "-o", "given.npz", "--bundle", toy, "--frames", "24")[0] == 0
    write_list({"name": "a", **condition}, {"name": "b", "seed": 3, **condition})
    batch("list.jsonl")
    before, path = records(), tmp_path / "out" / "batch.jsonl"
    there = videos(content(tmp_path / "out"))
    path.write_bytes(path.read_bytes()[:-9] if damage == "torn" else b"")
    batch("list.jsonl")
    assert videos(content(tmp_path / "out")) == there
    assert records()["b.npz"] | {"seconds": 0} == before["b.npz"] | {"seconds": 0}


def interrupted_at(monkeypatch, writes):
    """Press Ctrl-C where so many pieces of videos are written."""
    write, written = VideoWriter.write, []

    def counted(self, frames):
        written.append(None)
        if len(written) > writes:
            raise KeyboardInterrupt
        write(self, frames)

    monkeypatch.setattr(VideoWriter, "write", counted)


@pytest.mark.parametrize("writes", range(6))
def test_an_interrupted_batch_goes_on_with_the_clips_that_are_finished(
    batch, write_list, whole, tmp_path, monkeypatch, command, writes
):
    for name in whole:
        (tmp_path / "out" / name).unlink()
    with monkeypatch.context() as patch:
        interrupted_at(patch, writes)
        _, err = batch("list.jsonl", "--exact", code=130)
    assert "videos are done and kept; continue with: lvdm-rt batch -o out --bundle" in err
    assert (tmp_path / "out" / ".batch").is_dir()
    load, loaded = WorkDir.load, []

    def counted(self, site, shape):
        found = load(self, site, shape)
        loaded.append(found is not None)
        return found

    monkeypatch.setattr(WorkDir, "load", counted)
    assert command(*shlex.split(err.split("continue with: lvdm-rt ")[1]))[0] == 0
    assert loaded[0]
    assert len((tmp_path / "out" / "batch.jsonl").read_text().splitlines()) == len(LINES)
    assert videos(content(tmp_path / "out")) == videos(whole)


def test_what_is_done_of_an_interrupted_group_stays_whoever_goes_on(
    batch, write_list, tmp_path, monkeypatch, records
):
    write_list(*LINES[:2])
    with monkeypatch.context() as patch:
        close = VideoWriter.close

        def pressed(self):
            if (tmp_path / "out" / "0.npz").exists():
                raise KeyboardInterrupt
            close(self)

        patch.setattr(VideoWriter, "close", pressed)
        batch("list.jsonl", code=130)
    done = (tmp_path / "out" / "0.npz").read_bytes()
    assert "1 of 2 videos are to be made, 1 are done" in batch("list.jsonl", "--check")[1]
    _, err = batch("list.jsonl", "--batch-size", "1")
    assert "made 1 of 2 videos in out" in err
    assert (tmp_path / "out" / "0.npz").read_bytes() == done
    assert len((tmp_path / "out" / "batch.jsonl").read_text().splitlines()) == 2
    assert {record["status"] for record in records().values()} == {"done"}


def test_a_check_forgets_nothing_that_was_begun(batch, write_list, tmp_path, monkeypatch):
    write_list(*LINES)
    with monkeypatch.context() as patch:
        interrupted_at(patch, 0)
        batch("list.jsonl", code=130)
    begun = content(tmp_path / "out")
    write_list({"seed": 8, "name": "0"}, *LINES[1:])
    batch("list.jsonl", "--check")
    assert content(tmp_path / "out") == begun
    batch("list.jsonl")
    assert not (tmp_path / "out" / ".batch").exists()


@pytest.mark.parametrize("change", ["batch size", "list", "damage"])
def test_what_was_begun_otherwise_is_made_again(
    batch, write_list, whole, tmp_path, monkeypatch, change
):
    for name in whole:
        (tmp_path / "out" / name).unlink()
    with monkeypatch.context() as patch:
        interrupted_at(patch, 0)
        batch("list.jsonl", "--exact", code=130)
    flags = ("--batch-size", "3") if change == "batch size" else ()
    if change == "list":
        write_list({"seed": 0, "frames": 16, "name": "0"}, *LINES[1:])
    if change == "damage":
        (members,) = (tmp_path / "out" / ".batch").glob("*.json")
        with edited(members) as told:
            told[0][1] = "0"
    batch("list.jsonl", "--exact", *flags)
    made = content(tmp_path / "out")
    assert made.keys() == whole.keys()
    if change != "batch size":  # which stands in the settings inside
        assert [made[name] for name in ("1.npz", "4.npz")] == [whole["1.npz"], whole["4.npz"]]


def test_two_batches_do_not_share_a_folder(batch, write_list, tmp_path, whole):
    holder = lock.acquire(tmp_path / "out")
    try:
        _, err = batch("list.jsonl", code=1)
    finally:
        lock.release(holder)
    assert err == "lvdm-rt: out is in use by another batch; wait for it, or choose another -o\n"
    batch("list.jsonl", "--exact")
