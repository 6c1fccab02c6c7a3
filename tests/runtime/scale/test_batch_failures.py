"""A job that cannot be made is told and left out; what ends every job ends the batch."""

import errno
import os
from unittest.mock import Mock

import pytest
from toy_files import content, names

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")

from toy_text import TABLE, WORDS

from lvdm_engines.errors import DeviceMemoryError, SessionError, VideoError
from lvdm_rt import Pipeline
from lvdm_rt.video import VideoWriter, writer


@pytest.fixture(scope="session")
def poisoned(make_told):
    """A bundle that reads text, and makes infinite latents of the word green."""
    table = TABLE.copy()
    table[WORDS.index("green")] = 3e38
    return make_told(table=table)


PROMPTS = ("red", "blue", "green", "sky", "red sky", "blue sky")


@pytest.mark.parametrize("bad", range(4))
def test_a_clip_of_nan_costs_its_own_video_alone(
    batch, write_list, poisoned, tmp_path, records, calls, bad
):
    prompts = [text for text in PROMPTS if text != "green"]
    prompts.insert(bad, "green")
    flags = ("list.jsonl", "--exact", "--batch-size", "4")
    write_list(*({"prompt": text, "name": text} for text in prompts if text != "green"))
    batch(*flags, bundle=poisoned)
    alone = content(tmp_path / "out")
    for name in alone:
        (tmp_path / "out" / name).unlink()
    del calls[:]
    write_list(*({"prompt": text, "name": text} for text in prompts))
    _, err = batch(*flags, bundle=poisoned, code=1)
    told = records()["green.npz"]
    assert (told["status"], told["line"]) == ("failed", bad + 1)
    assert "predict clip 0 of video 0: the network returned NaN or infinity" in told["reason"]
    assert f"line {bad + 1}, green.npz: step " in err
    assert calls == {0: [4, 2, 1, 1, 2, 2], 1: [4, 2, 1, 1, 2, 2]}.get(bad, [4, 2, 2, 1, 1, 2])
    made = content(tmp_path / "out")
    assert {n: d for n, d in made.items() if "npz" in n} == {
        n: d for n, d in alone.items() if "npz" in n
    }
    assert [name for name in names(tmp_path / "out") if name.startswith(".")] == []


def test_a_condition_that_cannot_be_read_stops_no_other_job(batch, write_list, tmp_path, records):
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    write_list({"condition": "broken.mp4", "name": "a"}, {"name": "b"})
    _, err = batch("list.jsonl", code=1)
    assert "line 1, a.npz: " in err
    assert "broken.mp4" in err
    assert {name: record["status"] for name, record in records().items()} == {
        "a.npz": "failed",
        "b.npz": "done",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_what_is_no_file_is_not_waited_for_and_stops_no_other_job(
    batch, write_list, tmp_path, records
):
    os.mkfifo(tmp_path / "pipe")
    flags = ("list.jsonl", "--format", "png", "--frames", "2")
    write_list({"name": "a"}, {"name": "b"})
    batch(*flags)
    os.mkfifo(tmp_path / "out" / "a" / "pipe")
    (tmp_path / "out" / "b" / "folder").mkdir()
    write_list({"name": "a"}, {"name": "b"}, {"name": "c", "condition": "pipe"}, {"name": "d"})
    batch(*flags, code=1)
    reasons = {name: record.get("reason", "") for name, record in records().items()}
    assert "it holds pipe, which is no frame" in reasons["a"]
    assert "it holds folder, which is no frame" in reasons["b"]
    assert "pipe: it is no ordinary file" in reasons["c"]
    assert reasons["d"] == ""


def test_a_failed_job_is_tried_again(batch, write_list, tmp_path, records, toy, command):
    given = tmp_path / "given.npz"
    given.write_bytes(b"no film")
    write_list({"condition": "given.npz", "name": "a"}, {"name": "b"})
    batch("list.jsonl", code=1)
    words = ("generate", "-o", "given.npz", "--bundle", toy, "--frames", "24", "--force")
    given.unlink()
    assert command(*words)[0] == 0
    _, err = batch("list.jsonl")
    assert "made 1 of 2 videos in out" in err
    assert records()["a.npz"]["status"] == "done"


def test_a_name_that_is_taken_meanwhile_costs_its_own_video_alone(
    batch, write_list, tmp_path, monkeypatch
):
    close = VideoWriter.close

    def taken(self):
        (tmp_path / "out" / "b.npz").write_bytes(b"mine")
        close(self)

    monkeypatch.setattr(VideoWriter, "close", taken)
    write_list({"seed": 1, "name": "a"}, {"seed": 2, "name": "b"})
    _, err = batch("list.jsonl", code=1)
    assert "line 2, b.npz: " in err
    assert (tmp_path / "out" / "b.npz").read_bytes() == b"mine"
    assert (tmp_path / "out" / "a.npz.json").exists()


def test_too_little_memory_for_a_group_is_tried_with_less(batch, write_list, monkeypatch, calls):
    stream = Pipeline.stream_videos

    def tight(self, options, **how):
        if len(options) > 1:
            raise DeviceMemoryError("out of memory")
        return stream(self, options, **how)

    monkeypatch.setattr(Pipeline, "stream_videos", tight)
    write_list({"seed": 1}, {"seed": 2})
    batch("list.jsonl")
    assert calls == [1, 1]


@pytest.mark.parametrize(
    "error",
    [
        SessionError("the device is gone"),
        OSError(errno.ENOSPC, "No space left on device", "out/a"),
        "disk",
    ],
)
def test_what_would_end_every_job_ends_the_batch_and_says_how_to_go_on(
    batch, write_list, tmp_path, monkeypatch, records, error
):
    write_list(*({"seed": seed, "name": str(seed)} for seed in range(6)))
    batch("list.jsonl", "--exact")
    whole = content(tmp_path / "out")
    for name in whole:
        (tmp_path / "out" / name).unlink()
    stream, calls = Pipeline.stream_videos, []

    def failing(self, options, **how):
        calls.append(options)
        if len(calls) == 2:
            raise error
        return stream(self, options, **how)

    with monkeypatch.context() as patch:
        if error == "disk":
            full = OSError(errno.ENOSPC, "No space left on device")
            patch.setattr(writer.NpzSink, "write", Mock(side_effect=full))
        else:
            patch.setattr(Pipeline, "stream_videos", failing)
        _, err = batch("list.jsonl", "--exact", code=1)
    done = 0 if error == "disk" else 2
    assert f"{done} of 6 videos are done and kept; continue with: lvdm-rt batch" in err
    assert err.count("\n") == 1
    assert sorted(records()) == [f"{n}.npz" for n in range(done)]
    batch("list.jsonl", "--exact")
    assert {n: d for n, d in content(tmp_path / "out").items() if n != "batch.jsonl"} == {
        n: d for n, d in whole.items() if n != "batch.jsonl"
    }


def test_a_backend_that_cannot_run_is_one_error_and_no_job_has_failed(batch, write_list, records):
    write_list({"seed": 1})
    _, err = batch("list.jsonl", "--backend", "tensorrt", code=1)
    assert "tensorrt" in err
    assert records() == {}


def test_a_record_that_cannot_be_written_ends_the_batch(batch, write_list, tmp_path):
    (tmp_path / "out" / "batch.jsonl").mkdir(parents=True)
    write_list({"seed": 1})
    assert "out/batch.jsonl cannot be read" in batch("list.jsonl", code=1)[1]


def test_reasons_are_those_of_the_library(batch, write_list, monkeypatch, records):
    monkeypatch.setattr(
        Pipeline, "stream_videos", Mock(side_effect=[VideoError("a"), MemoryError()])
    )
    write_list({"name": "a"}, {"name": "b", "steps": 2})
    batch("list.jsonl", code=1)
    assert [record["reason"] for record in records().values()] == [
        "a",
        "out of memory; lower batch_size",
    ]
