"""Batches of jobs: who shares one, and what becomes of the others when one ends early."""

import threading

import numpy as np
import pytest
from toy_arrays import make_manifest, make_sessions
from toy_serving import serving, until

from lvdm_engines.errors import SessionError
from lvdm_rt.serve.api import VideoRequest
from lvdm_rt.serve.service import Asking, Keeping
from lvdm_rt.video import read_sidecar


def ask(service, seed, client="a", **fields):
    fields = VideoRequest(**{"num_frames": 40, "seed": seed, **fields})
    return service.accept(Asking(fields=fields, client=client)).id


def status(service, job):
    return service.get(job).status


def ended(service, *jobs):
    until(lambda: all(service.get(job).has_ended for job in jobs))
    return [status(service, job) for job in jobs]


def results(service, jobs):
    return [service.result(job).read_bytes() for job in jobs]


@pytest.fixture
def alone(tmp_path):
    """The files of jobs that each had a server of its own."""
    with serving(tmp_path / "alone", exact=True) as service:
        jobs = []
        for seed in range(3):
            jobs.append(ask(service, seed))
            assert ended(service, jobs[-1]) == ["completed"]
        return results(service, jobs)


@pytest.fixture
def held():
    """Sessions whose predictor waits in its call `at` until it is let go."""
    sessions, reached, go = make_sessions(make_manifest()), threading.Event(), threading.Event()
    predict = sessions["predict"]

    def hold(call):
        if call == predict.at:
            reached.set()
            assert go.wait(30)

    predict.hook, predict.reached, predict.go, predict.at = hold, reached, go, 3
    yield sessions
    go.set()


def test_jobs_that_wait_and_can_share_a_batch_do(folder):
    sessions = make_sessions(make_manifest())
    with serving(folder, sessions, start=False) as service:
        jobs = [ask(service, seed) for seed in (1, 2)]
        other = ask(service, 3, num_inference_steps=3)
        jobs.append(ask(service, 4))
        service.start()
        assert ended(service, *jobs, other) == ["completed"] * 4
        assert {service.get(job).batch for job in jobs} == {service.get(jobs[0]).number}
        assert service.get(other).batch == service.get(other).number
    assert max(sessions["predict"].rows) == 3  # rows of one call


def test_a_batch_is_not_larger_than_was_said(folder):
    with serving(folder, start=False, batch_size=2) as service:
        jobs = [ask(service, seed) for seed in range(5)]
        service.start()
        assert ended(service, *jobs) == ["completed"] * 5
        numbers = [service.get(job).batch for job in jobs]
    assert numbers == [1, 1, 3, 3, 5]


def test_of_a_batch_one_is_cancelled_and_the_others_end_as_if_nothing_had_been(folder, held, alone):
    with serving(folder, held, start=False, exact=True) as service:
        jobs = [ask(service, seed) for seed in range(3)]
        service.start()
        assert held["predict"].reached.wait(30)
        threading.Timer(0.05, held["predict"].go.set).start()
        assert service.delete(jobs[1]).status == "cancelled"
        calls = len(held["predict"].rows)
        assert not service.store.work(jobs[1]).exists()
        assert ended(service, *jobs) == ["completed", "cancelled", "completed"]
        assert results(service, [jobs[0], jobs[2]]) == [alone[0], alone[2]]
    assert calls <= 4  # one network call at most after it was asked


def test_cancelling_the_only_one_leaves_nothing_behind(folder, held):
    with serving(folder, held, start=False) as service:
        job = ask(service, 1)
        service.start()
        assert held["predict"].reached.wait(30)
        threading.Timer(0.05, held["predict"].go.set).start()
        service.delete(job)
        assert status(service, job) == "cancelled"
        last = ask(service, 2)
        assert ended(service, last) == ["completed"]
    assert [path for path in folder.rglob(f"*{job}*")] == []  # noqa: C416 - reads as a sentence


def test_a_video_that_fails_takes_no_other_with_it(folder):
    sessions = make_sessions(make_manifest())
    real = sessions["predict"].compute

    def sometimes(latents, **others):
        out = real(latents, **others)
        if len(latents) > 1 or fails["alone"]:  # whenever the bad one is in the batch
            out[-1] = np.nan
        return out

    fails = {"alone": False}
    sessions["predict"].compute = sometimes
    with serving(folder, sessions, start=False, batch_size=2) as service:
        jobs = [ask(service, seed) for seed in (1, 2)]
        service.start()
        assert ended(service, *jobs) == ["completed", "completed"]  # each alone
        fails["alone"] = True
        bad = ask(service, 3)
        assert ended(service, bad) == ["failed"]
        error = service.get(bad).error
    assert (error.code, "NaN or infinity" in error.message) == ("numerics", True)


def test_a_fault_of_the_engine_is_told_without_its_words(folder, sessions):
    def broken(_):
        raise SessionError("/opt/engine/libsecret.so: failed")

    sessions["predict"].hook = broken
    with serving(folder, sessions) as service:
        job = ask(service, 1)
        assert ended(service, job) == ["failed"]
        error = service.get(job).error
    assert "secret" not in error.message
    assert "log" in error.message


@pytest.mark.parametrize("members", [1, 3])
def test_a_parked_job_is_gone_on_with_and_ends_in_the_same_file(folder, held, alone, members):
    held["interpolate"].hook = held["predict"].hook  # when the first clip of each is finished
    held["predict"].hook = lambda call: None
    with serving(folder, held, start=False, exact=True) as service:
        jobs = [ask(service, seed) for seed in range(members)]
        service.start()
        assert held["predict"].reached.wait(30)
        threading.Timer(0.05, held["predict"].go.set).start()
        service.stop(0)
        assert {status(service, job) for job in jobs} == {"in_progress"}
        assert all(list(service.store.work(job).rglob("*.npy")) for job in jobs)
    sessions = make_sessions(make_manifest())
    with serving(folder, sessions, exact=True) as service:
        assert ended(service, *jobs) == ["completed"] * members
        assert results(service, jobs) == alone[:members]
        until(lambda: not list((folder / "work").iterdir()))
    assert sessions["predict"].rows == []  # what was finished was not made again


def test_a_batch_keeps_its_company_over_a_restart(folder, held, tmp_path):
    def begun(place, sessions):
        for session in sessions.values():
            session.jitter = True  # rounds as the number of rows makes it
        with serving(place, sessions, start=False) as service:
            jobs = [ask(service, seed) for seed in range(3)]
            service.start()
            if sessions is not held:
                assert ended(service, *jobs) == ["completed"] * 3
                return results(service, jobs)
            assert held["predict"].reached.wait(30)
            threading.Timer(0.05, held["predict"].go.set).start()
            service.stop(0)
            return jobs

    held["interpolate"].hook, held["predict"].hook = held["predict"].hook, lambda call: None
    whole = begun(tmp_path / "undisturbed", make_sessions(make_manifest()))
    jobs = begun(folder, held)
    sessions = make_sessions(make_manifest())
    for session in sessions.values():
        session.jitter = True
    with serving(folder, sessions) as service:
        assert ended(service, *jobs) == ["completed"] * 3
        assert results(service, jobs) == whole
    assert max(sessions["interpolate"].rows) > 3


def test_a_whole_file_of_a_job_that_was_not_yet_called_so_is_not_made_again(folder):
    with serving(folder) as service:
        job = ask(service, 1)
        assert ended(service, job) == ["completed"]
        before = service.result(job).stat().st_mtime_ns
        batch = service.get(job).batch
    with serving(folder, start=False) as service:
        service.store._db.execute("UPDATE job SET status = 'in_progress'")
        service.start()
        assert ended(service, job) == ["completed"]
        assert service.result(job).stat().st_mtime_ns == before
        assert service.get(job).batch == batch


def test_a_server_that_stops_lets_jobs_end_that_need_no_longer_than_it_gives(folder, held):
    with serving(folder, held, start=False) as service:
        job = ask(service, 1)
        service.start()
        assert held["predict"].reached.wait(30)
        threading.Timer(0.05, held["predict"].go.set).start()
        later = ask(service, 2, num_inference_steps=2)
        service.stop(30)
        assert status(service, job) == "completed"
        assert status(service, later) == "queued"


def test_results_go_when_their_time_or_their_space_is_over(folder):
    with serving(folder, keeping=Keeping(seconds=3600)) as service:
        job = ask(service, 1)
        assert ended(service, job) == ["completed"]
        told = service.told(service.get(job))
        assert told.expires_at - told.completed_at == 3600
    with serving(folder, keeping=Keeping(bytes=1)) as service:
        until(lambda: not list((folder / "results").iterdir()))
        assert service.store.get(job) is None


def test_a_sidecar_holds_what_repeats_the_video(service):
    job = ask(service, 7)
    assert ended(service, job) == ["completed"]
    told = read_sidecar(service.result(job))
    assert {"lvdm_rt", "bundle", "model_sha256", "arithmetic", "steps", "video"} < told.keys()
    assert told["video"] == 0
