"""Many jobs in one run: in groups, each as if it had been made alone, and told as they are made."""

import json

import numpy as np
import pytest
from toy_files import names

pytest.importorskip("onnx")

from lvdm_rt.commands import telling

LINES = (
    {"seed": 3, "name": "a"},
    {"seed": 4, "frames": 20, "name": "b"},
    {"seed": 5, "name": "c.webm"},
    {"condition": "given.npz", "name": "d"},
    {"seed": 6, "steps": 40, "sampler": "ddim", "name": "e"},
    {"seed": 7, "name": "f"},
    {"condition": "given.npz", "join": True, "name": "g"},
)
ALONE = {
    "a.npz": ("--seed", "3"),
    "b.npz": ("--seed", "4", "--frames", "20"),
    "c.webm": ("--seed", "5"),
    "d.npz": ("--condition", "given.npz"),
    "e.npz": ("--seed", "6", "--steps", "40", "--sampler", "ddim"),
    "f.npz": ("--seed", "7"),
    "g.npz": ("--condition", "given.npz", "--join"),
}


@pytest.fixture
def given(command, toy):
    assert command("generate", "-o", "given.npz", "--bundle", toy, "--frames", "24")[0] == 0


def test_each_job_is_the_video_that_is_made_alone(
    batch, write_list, command, toy, tmp_path, given, calls
):
    write_list(*LINES)
    batch("list.jsonl", "--exact")
    assert calls == [2, 1, 1, 1, 1, 1]  # a and c; b; d; e; f; g
    for name, flags in ALONE.items():
        words = ("generate", "-o", f"alone-{name}", "--bundle", toy, "--frames", "12", "--exact")
        assert command(*words, "--batch-size", "2", "--backend", "cpu", *flags)[0] == 0
        for file in (name, f"{name}.json"):
            alone = (tmp_path / f"alone-{file}").read_bytes()
            assert (tmp_path / "out" / file).read_bytes() == alone


def test_the_same_job_is_the_same_bytes_in_every_group(batch, write_list, tmp_path):
    write_list(*({"seed": seed} for seed in range(4)))
    batch("list.jsonl", "--exact")
    wanted = (tmp_path / "out" / "line-000003.npz").read_bytes()
    write_list({"seed": 2, "name": "first"}, *({"seed": 9 + n, "name": str(n)} for n in range(3)))
    batch("list.jsonl", "--exact")
    assert (tmp_path / "out" / "first.npz").read_bytes() == wanted


def test_what_is_done_stands_in_the_record(batch, write_list, records, tmp_path):
    write_list({"seed": 3, "name": "a"}, {"sed": 4})
    batch("list.jsonl", code=1)
    done, failed = records()["a.npz"], records()[2]
    sidecar = json.loads((tmp_path / "out" / "a.npz.json").read_text())
    assert {"bytes": done["bytes"], "sha256": done["sha256"]} == sidecar["file"]
    assert (done["status"], done["line"], len(done["job"])) == ("done", 1, 64)
    assert done["seconds"] > 0
    assert (failed["status"], failed["line"]) == ("failed", 2)
    assert "got 'sed'" in failed["reason"]
    assert names(tmp_path / "out") == ["a.npz", "a.npz.json", "batch.jsonl"]


def test_seeds_need_no_list(batch, tmp_path, frames_of):
    _, err = batch("--seeds", "3:6")
    assert "made 3 of 3 videos in out in" in err
    files = [name for name in names(tmp_path / "out") if name.endswith(".npz")]
    assert files == ["seed-000003.npz", "seed-000004.npz", "seed-000005.npz"]
    pictures = [frames_of(f"out/{name}") for name in files]
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_folder_of_pictures_is_a_video_as_well(batch, write_list, tmp_path):
    write_list({"name": "a"})
    batch("list.jsonl", "--format", "png", "--frames", "3")
    assert len(names(tmp_path / "out" / "a")) == 3
    _, err = batch("list.jsonl", "--format", "png", "--frames", "3")
    assert "made 0 of 1 videos" in err


def test_progress_counts_all_videos_and_every_job_is_an_event(batch, write_list, monkeypatch):
    monkeypatch.setitem(telling._SECONDS_BETWEEN, "json", 0)
    write_list({"seed": 1}, {"seed": 2, "frames": 20}, {"sed": 3})
    out, err = batch("list.jsonl", "--progress", "json", "--json", code=1)
    events = [json.loads(line) for line in err.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1], kinds.count("job")) == ("start", "done", 3)
    start, last = events[0], [event for event in events if event["event"] == "progress"][-1]
    assert {k: start[k] for k in ("jobs", "missing", "done", "failed")} == {
        "jobs": 3, "missing": 2, "done": 0, "failed": 1,
    }  # fmt: skip
    assert (last["frames"], last["total_frames"]) == (32, 32)
    assert last["steps"] == last["total_steps"]
    told = json.loads(out)
    assert told == {name: value for name, value in events[-1].items() if name != "event"}
    assert (told["made"], told["done"]) == (["line-000001.npz", "line-000002.npz"], 2)
    assert [failed["line"] for failed in told["failed"]] == [3]


def test_a_quiet_batch_tells_failures_alone(batch, write_list):
    write_list({"seed": 1}, {"sed": 3})
    out, err = batch("list.jsonl", "-q", code=1)
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("lvdm-rt: line 2: got 'sed'")


def test_many_failures_are_told_in_full_in_the_record_alone(batch, write_list, records):
    write_list({"seed": 1}, *({"seed": -n} for n in range(1, 40)))
    _, err = batch("list.jsonl", "-q", code=1)
    assert err.count("\n") == 21
    assert len(records()) == 40


def test_a_check_makes_nothing(batch, write_list, tmp_path, calls):
    write_list({"seed": 1}, {"sed": 3})
    _, err = batch("list.jsonl", "--check", code=1)
    assert "line 2: got 'sed'" in err
    assert "1 of 2 videos are to be made, 0 are done, 1 cannot be made" in err
    assert (calls, names(tmp_path)) == ([], ["list.jsonl"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give a list, JOBS.jsonl, or --seeds, and not both"),
        (("list.jsonl", "--seeds", "0:3"), "and not both"),
        (("--seeds", "0:3", "--seed", "2"), "leave out --seed"),
        (("--seeds", "3:3"), "expected FIRST:END, as in 0:1000"),
        (("--seeds", "0:3", "--join"), "--join belongs to --condition"),
        (("--seeds", "0:3", "--eta", "1", "--sampler", "ddpm"), "--eta belongs to ddim"),
        (("--seeds", "0:3", "-o", "-"), "give a folder"),
        (("--seeds", "0:3", "--resume"), "No such option"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(batch, flags, message):
    assert message in batch(*flags, code=2)[1]


def test_a_list_of_which_nothing_can_be_made_is_one_error(batch, write_list, tmp_path, calls):
    write_list({"seed": 1}, {"seed": 2})
    _, err = batch("list.jsonl", "--mode", "short", code=1)
    assert err.startswith("lvdm-rt: none of 2 jobs can be made: mode short needs a short graph")
    write_list("", "")
    assert "holds no job, expected one in each line" in batch("list.jsonl", code=1)[1]
    assert (calls, names(tmp_path)) == ([], ["list.jsonl"])
