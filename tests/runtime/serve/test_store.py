"""Jobs in a file: their states, and what is removed."""

import sqlite3

import pytest
from msgspec.structs import replace
from toy_arrays import make_manifest

from lvdm_engines.errors import WorkError
from lvdm_rt import GenerateOptions
from lvdm_rt.options import resolve
from lvdm_rt.serve.jobs import JobError, VideoJob
from lvdm_rt.serve.store import JobStore

SETTINGS = resolve(GenerateOptions(frames=8, seed=2**64 - 1), make_manifest())


def job(number, **changes):
    made = VideoJob(
        id=f"video_{number:032x}",
        model="fake",
        model_sha256="0" * 64,
        size="16x16",
        settings=SETTINGS,
        created=1000.0 + number,
    )
    return replace(made, **changes)


@pytest.fixture
def store(tmp_path):
    store = JobStore(tmp_path)
    yield store
    store.close()


def test_a_job_comes_back_as_it_was_after_a_restart(store, tmp_path):
    kept = store.add(job(1, condition="ab", client="::1", key="k", asked="cd"))
    assert store.end(kept.id, "failed", 5.0, error=JobError("numerics", "NaN"))
    store.close()
    again = JobStore(tmp_path)
    wanted = replace(kept, status="failed", ended=5.0, error=JobError("numerics", "NaN"))
    assert again.get(kept.id) == wanted
    assert again.by_key("::1", "k") == wanted
    assert again.by_key("::2", "k") is None
    again.close()


def test_a_job_ends_once(store):
    kept = store.add(job(1))
    assert store.end(kept.id, "cancelled", 1.0)
    assert not store.end(kept.id, "completed", 2.0)
    store.begin([kept], 1, 3.0)
    assert store.get(kept.id).status == "cancelled"


def test_only_what_has_ended_is_forgotten(store):
    kept = store.add(job(1))
    assert not store.forget(kept.id)
    store.end(kept.id, "completed", 1.0)
    assert store.forget(kept.id)
    assert store.get(kept.id) is None


def test_jobs_are_counted_by_state_and_client(store):
    for number, client in enumerate(("a", "a", "b")):
        store.add(job(number, client=client))
    store.begin([store.page(None, 1, newest=False)[0]], 1, 0.0)
    assert store.count("queued") == 2
    assert store.count("queued", "in_progress", client="a") == 2
    assert store.count("completed") == 0


def test_a_batch_is_of_those_whose_videos_are_wanted(store):
    jobs = [store.add(job(number)) for number in range(4)]
    store.begin(jobs, jobs[0].number, 0.0)
    store.end(jobs[0].id, "completed", 1.0)
    store.end(jobs[1].id, "cancelled", 1.0)
    assert [kept.id for kept in store.batch(jobs[0].number)] == [jobs[k].id for k in (0, 2, 3)]


def test_files_of_jobs_that_are_gone_are_swept_and_no_others(store, tmp_path):
    jobs = [store.add(job(number)) for number in range(5)]
    store.begin(jobs[:2], jobs[0].number, 0.0)  # of which one has a whole video already
    store.begin(jobs[2:4], jobs[2].number, 0.0)
    for ended in (jobs[0], jobs[2]):
        store.end(ended.id, "completed", 1.0)
    store.end(jobs[3].id, "cancelled", 1.0)
    gone = job(9)
    for some in (*jobs, gone):
        store.result(some.id).write_bytes(b"0")
        store.condition(some.id).write_bytes(b"0")
        (store.work(some.id) / "video-000000").mkdir(parents=True)
    (tmp_path / "results" / f".{jobs[1].id}.mp4.abcdefgh.partial").write_bytes(b"0")
    (tmp_path / "results" / "holiday.mp4").write_bytes(b"0")
    (tmp_path / "conditions" / f"{gone.id}.upload.mp4").write_bytes(b"0")
    store.sweep()
    left = {folder: names(tmp_path / folder) for folder in ("results", "work", "conditions")}
    assert left["results"] == {"holiday.mp4", *(f"{jobs[k].id}.mp4" for k in (0, 1, 2, 4))}
    assert left["work"] == {jobs[k].id for k in (0, 1, 4)}  # the clips of a whole batch are needed
    assert left["conditions"] == {f"{jobs[k].id}.npy" for k in (0, 1, 4)}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_file_of_another_version_is_refused_in_one_line(tmp_path):
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as other:
        other.execute("PRAGMA user_version=7")
    other.close()
    with pytest.raises(WorkError, match="got version 7 of its jobs, expected 1; choose another"):
        JobStore(tmp_path)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "jobs.sqlite3").write_bytes(b"nothing" * 1000)
    with pytest.raises(WorkError, match="cannot hold jobs: file is not a database"):
        JobStore(tmp_path)
