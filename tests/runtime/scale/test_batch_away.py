"""Units of a batch made by others: where the folder is seen, and sent back where it is not."""

import pickle
from contextlib import contextmanager

import pytest
from toy_files import content, names

pytest.importorskip("onnx")

from lvdm_engines.errors import LvdmError, SessionError
from lvdm_rt.scale import batch_away, batch_units
from lvdm_rt.scale.crew import Outcome, Share


class InProcessCrew:
    """Does every piece here, as another process would: with what can be pickled, in no order."""

    def __init__(self, held):
        self.held, self.sent = held, []

    def map(self, function, units):
        for unit in reversed(list(units)):
            self.sent.append(unit)
            there = pickle.loads(pickle.dumps(unit))  # noqa: S301 - our own
            try:
                result = pickle.loads(pickle.dumps(function(self.held, there)))  # noqa: S301
            except LvdmError as err:
                yield Outcome(unit, None, err)
            else:
                yield Outcome(unit, result)


@pytest.fixture
def crew(monkeypatch):
    """Take the place of a cluster; gives crews in the order of runs."""
    crews = []

    @contextmanager
    def connect(options, opening):
        open_pipeline = pickle.loads(pickle.dumps(opening(Share(2, 1, 0))))  # noqa: S301
        with open_pipeline() as pipeline:
            crews.append(InProcessCrew(pipeline))
            yield crews[-1]

    monkeypatch.setattr(batch_away, "connect", connect)
    return crews


def videos(folder):
    return {name: data for name, data in content(folder).items() if name != "batch.jsonl"}


LINES = ({"name": "a"}, {"name": "b", "seed": 1}, {"name": "c", "seed": 2}, {"name": "d"})


@pytest.mark.parametrize("form", ["npz", "png"])
@pytest.mark.parametrize("way", [(), ("--send-back",)])
def test_a_cluster_makes_the_files_that_this_process_makes(
    batch, write_list, crew, tmp_path, records, way, form
):
    write_list(*LINES)
    flags = ("list.jsonl", "--exact", "--format", form)
    batch(*flags)
    here = videos(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "here")
    batch(*flags, "--ray", *way)
    assert videos(tmp_path / "out") == here
    assert {record["status"] for record in records().values()} == {"done"}
    assert len(records()) == 4
    assert [unit.mark is None for unit in crew[0].sent] == [bool(way)] * 2
    _, err = batch(*flags, "--ray", *way)
    assert "made 0 of 4 videos" in err
    assert len(crew) == 1  # nobody was asked for


def test_where_the_folder_is_not_seen_videos_are_sent_back(
    batch, write_list, crew, tmp_path, monkeypatch
):
    write_list(*LINES)
    monkeypatch.setattr(batch_away.AwayUnit, "in_place", lambda _: False)
    made_here = []
    make = batch_units.make_videos

    def make_videos(call, *how):
        made_here.extend(call.names)
        make(call, *how)

    monkeypatch.setattr(batch_units, "make_videos", make_videos)
    batch("list.jsonl", "--ray")
    assert made_here
    assert not [name for name in made_here if name.startswith(str(tmp_path / "out"))]
    assert {"a.npz", "b.npz", "c.npz", "d.npz"} < set(names(tmp_path / "out"))


@pytest.mark.parametrize("way", [(), ("--send-back",)])
def test_a_job_that_fails_on_a_worker_is_told_as_it_is_here(
    batch, write_list, crew, tmp_path, records, way
):
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    write_list(*LINES, {"name": "bad", "condition": "broken.mp4"}, {"sed": 3})
    _, err = batch("list.jsonl", "--ray", *way, code=1)
    assert "line 5, bad.npz: " in err
    assert "broken.mp4" in err
    told = {name: record["status"] for name, record in records().items()}
    assert told == dict.fromkeys(("a.npz", "b.npz", "c.npz", "d.npz"), "done") | {
        "bad.npz": "failed",
        6: "failed",
    }


def test_a_name_that_is_taken_meanwhile_is_not_replaced_by_what_is_sent_back(
    batch, write_list, crew, tmp_path, monkeypatch
):
    write_list(*LINES)
    check = batch_away.check_free

    def taken(path, *how, **more):
        if path.name == "b.npz":
            path.write_bytes(b"mine")
        check(path, *how, **more)

    monkeypatch.setattr(batch_away, "check_free", taken)
    _, err = batch("list.jsonl", "--ray", "--send-back", code=1)
    assert "line 2, b.npz: cannot write" in err
    assert (tmp_path / "out" / "b.npz").read_bytes() == b"mine"
    assert (tmp_path / "out" / "a.npz.json").exists()


def test_what_came_damaged_is_no_video(batch, write_list, crew, tmp_path, monkeypatch):
    write_list(LINES[0], LINES[1])
    read = batch_away.read_video

    def damaged(path):
        return read(path) | ({".": b"torn"} if path.name == "a.npz" else {})

    monkeypatch.setattr(batch_away, "read_video", damaged)
    _, err = batch("list.jsonl", "--ray", "--send-back", code=1)
    assert "a.npz did not come as it was sent; run it again" in err
    assert names(tmp_path / "out") == ["b.npz", "b.npz.json", "batch.jsonl"]


def test_an_engine_that_fails_on_a_worker_ends_the_batch_and_keeps_what_is_done(
    batch, write_list, crew, monkeypatch, records
):
    write_list(*LINES)
    make, calls = batch_units.make_videos, []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise SessionError("the device is gone")
        make(*arguments)

    monkeypatch.setattr(batch_units, "make_videos", broken)
    _, err = batch("list.jsonl", "--ray", code=1)
    assert "the device is gone; 2 of 4 videos are done and kept; continue with: lvdm-rt" in err
    assert len(records()) == 2


def test_a_worker_with_another_model_makes_nothing(batch, write_list, crew, monkeypatch, tmp_path):
    write_list(*LINES)
    models = iter(["ours", "another"])
    monkeypatch.setattr(batch_away, "model_sha256", lambda _: next(models))
    _, err = batch("list.jsonl", "--ray", code=1)
    assert "a worker has another toy than this machine" in err
    assert names(tmp_path) == ["list.jsonl", "out"]


def test_a_unit_that_a_lost_worker_still_holds_is_made_without_its_clips(
    batch, write_list, tmp_path, monkeypatch
):
    write_list(LINES[0])
    from lvdm_engines import lock

    holders = []
    begin = batch_units.Unit.begin

    def held(unit):
        begin(unit)
        if not holders:
            holders.append(lock.made_and_locked(unit.hand / unit.key))

    monkeypatch.setattr(batch_units.Unit, "begin", held)
    try:
        batch("list.jsonl")
    finally:
        lock.release(*holders)
    assert (tmp_path / "out" / "a.npz.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("list.jsonl", "--workers", "2"), "--workers belongs to --ray"),
        (("list.jsonl", "--send-back"), "--send-back belongs to --ray"),
        (("--ray", "list.jsonl"), "--ray took list.jsonl for its address"),
    ],
)
def test_flags_of_a_cluster_make_sense_with_one_alone(batch, write_list, flags, message):
    write_list(*LINES)
    assert message in batch(*flags, code=2)[1]
