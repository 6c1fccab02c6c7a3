"""A video that is whole while others of its batch are not, and what becomes of those."""

import json
import threading

import pytest
from toy_arrays import make_manifest, make_sessions
from toy_serving import serving, until

from lvdm_rt.serve.api import VideoRequest
from lvdm_rt.serve.service import Asking


def ask(service, seed):
    fields = VideoRequest(num_frames=400, seed=seed)
    return service.accept(Asking(fields=fields, client="a")).id


def waiting(holds):
    """Sessions whose decoder waits in the first call of which something holds."""
    sessions, reached, go = make_sessions(make_manifest()), threading.Event(), threading.Event()

    def hold(_):
        if not reached.is_set() and holds():
            reached.set()
            assert go.wait(30)

    sessions["decoder"].hook = hold
    return sessions, reached, go


@pytest.fixture
def parked(folder):
    """Two jobs of a batch, of which one is whole and the other was left by a server."""
    jobs = []
    sessions, reached, go = waiting(lambda: jobs and service.get(jobs[0]).has_ended)
    with serving(folder, sessions, start=False) as service:
        jobs += [ask(service, seed) for seed in (1, 2)]
        service.start()
        assert reached.wait(30)
        threading.Timer(0.05, go.set).start()
        service.stop(0)
        assert [service.get(job).status for job in jobs] == ["completed", "in_progress"]
    return jobs


@pytest.mark.slow  # a batch is begun, stopped and made again
def test_clips_of_another_engine_are_made_again_those_of_whole_videos_as_well(folder, parked):
    for file in (folder / "work").rglob("work.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "arithmetic": "another"}))
    with serving(folder) as service:
        until(lambda: service.get(parked[1]).has_ended)
        assert service.get(parked[1]).error is None
        until(lambda: not list((folder / "work").iterdir()))


@pytest.mark.slow  # a batch is begun, stopped and made again
def test_a_whole_video_can_be_removed_while_others_of_its_batch_are_made(folder, parked):
    sessions, reached, go = waiting(lambda: True)
    with serving(folder, sessions) as service:
        assert reached.wait(30)
        assert service.delete(parked[0]) is None
        go.set()
        until(lambda: service.get(parked[1]).has_ended)
        assert service.get(parked[1]).error is None
        until(lambda: not list((folder / "work").iterdir()))
    assert not list(folder.rglob(f"*{parked[0]}*"))
