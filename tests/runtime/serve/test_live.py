"""What is seen of a video while it is made: its film as it grows, and events."""

import asyncio
import base64
import io
import json
import re
import threading

import av
import msgspec
import numpy as np
import pytest
from toy_arrays import make_manifest, make_sessions
from toy_serving import serving, until

from lvdm_engines.errors import VideoError
from lvdm_engines.preview_map import PreviewMap
from lvdm_rt.serve import live
from lvdm_rt.serve.live_film import live_path
from lvdm_rt.video.fragmented import FragmentedFilm

MAP = PreviewMap((128.0,) * 3, ((10.0,) * 3,) * 2)


def ask(client, **fields):
    return client.post("/v1/videos", json={"num_frames": 24, "seed": 1, **fields}).json()["id"]


def ended(service, job):
    return until(lambda: (told := service.get(job)).has_ended and told)


def frames_of(data):
    with av.open(io.BytesIO(data)) as film:
        return np.stack([f.to_ndarray(format="rgb24") for f in film.decode(video=0)]).astype(int)


def events_of(text):
    """Pairs of an event's name and what it tells."""
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    return [(name, json.loads(told)) for name, told in found]


@pytest.fixture
def held(folder):
    """A service whose sampling waits at a chosen network call: (service, client's go)."""
    manifest = msgspec.structs.replace(make_manifest(), preview=MAP)
    sessions = make_sessions(manifest)
    go, reached = threading.Event(), threading.Event()

    def hook(call):
        if call == 4:  # windows of the decoder: frames are there by then
            reached.set()
            assert go.wait(60)

    sessions["decoder"].hook = hook
    with serving(folder, sessions, manifest) as service:
        try:
            yield service, reached, go
        finally:
            go.set()


def test_the_stream_of_a_video_has_the_frames_of_its_file(client, service):
    job = ask(client)
    answer = client.get(f"/v1/videos/{job}/stream")
    assert re.fullmatch(r'video/mp4; codecs="avc1\.64[0-9A-F]{4}"', answer.headers["content-type"])
    assert answer.headers["cache-control"] == "no-store"
    seen = frames_of(answer.content)
    assert seen.shape == (24, 16, 16, 3)
    assert ended(service, job).status == "completed"
    whole = client.get(f"/v1/videos/{job}/content").content
    assert np.abs(seen - frames_of(whole)).mean() < 3  # both are lossy


def test_who_comes_late_gets_the_video_from_its_start(held, client_of):
    service, reached, go = held
    client = client_of(service)
    job = ask(client, num_frames=64)
    assert reached.wait(60)
    path = live_path(service.store.result(job))
    until(lambda: path.exists() and b"mdat" in path.read_bytes())  # not its beginning alone
    kept = path.read_bytes()
    assert 0 < len(frames_of(kept)) < 64  # which can be played while the rest is not there
    answers = []
    readers = [
        threading.Thread(target=lambda: answers.append(client.get(f"/v1/videos/{job}/stream")))
        for _ in range(2)
    ]
    for reader in readers:
        reader.start()
    go.set()
    for reader in readers:
        reader.join()
    assert [len(frames_of(answer.content)) for answer in answers] == [64, 64]
    assert answers[0].content.startswith(kept)


def test_a_finished_video_is_streamed_from_its_file(client, service):
    job = ask(client)
    ended(service, job)
    until(lambda: not live_path(service.store.result(job)).exists())
    answer = client.get(f"/v1/videos/{job}/stream")
    assert 'codecs="avc1.64' in answer.headers["content-type"]
    assert b"moof" in answer.content
    whole = client.get(f"/v1/videos/{job}/content").content
    np.testing.assert_array_equal(frames_of(answer.content), frames_of(whole))
    assert {path.suffix for path in service.store.result(job).parent.iterdir()} == {".mp4", ".json"}


def test_a_film_that_was_never_opened_in_time_is_read_from_the_file(client, service, monkeypatch):
    monkeypatch.setattr(live, "_opened", lambda *_: None)
    assert len(frames_of(client.get(f"/v1/videos/{ask(client)}/stream").content)) == 24


def test_a_video_that_was_cancelled_has_no_stream(client, idle, client_of):
    client = client_of(idle)
    job = ask(client)
    client.delete(f"/v1/videos/{job}")
    answer = client.get(f"/v1/videos/{job}/stream")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_content")
    assert client.get("/v1/videos/video_0/stream").status_code == 404
    assert client.get("/v1/videos/video_0/events").status_code == 404


def test_who_watches_a_video_that_is_cancelled_comes_to_the_end(held, client_of):
    service, reached, go = held
    client = client_of(service)
    job = ask(client, num_frames=64)
    assert reached.wait(60)
    answers = []
    paths = [f"/v1/videos/{job}/stream", f"/v1/videos/{job}/events"]
    readers = [
        threading.Thread(target=lambda path=path: answers.append(client.get(path)))
        for path in paths
    ]
    for reader in readers:
        reader.start()
    until(lambda: len(service.broadcaster._listeners.get(job, ())) == 2)
    threading.Timer(0.05, go.set).start()
    client.delete(f"/v1/videos/{job}")
    for reader in readers:
        reader.join()
    by_kind = {answer.headers["content-type"].partition(";")[0]: answer for answer in answers}
    assert 0 < len(frames_of(by_kind["video/mp4"].content)) < 64
    last = events_of(by_kind["text/event-stream"].text)[-1]
    assert (last[0], last[1]["status"]) == ("status", "cancelled")


def test_events_tell_status_progress_frames_and_pictures(held, client_of):
    service, _, go = held
    go.set()
    client = client_of(service)
    told = events_of(client.get(f"/v1/videos/{ask(client)}/events").text)
    assert told[0][0] == told[-1][0] == "status"
    assert (told[-1][1]["status"], told[-1][1]["progress"]) == ("completed", 100)
    by_name = dict(told)
    assert by_name.keys() == {"status", "progress", "frames", "preview"}
    assert by_name["progress"].keys() == {
        "progress",
        "steps",
        "total_steps",
        "frames",
        "total_frames",
    }
    progress = [event["progress"] for name, event in told if name == "progress"]
    assert progress == sorted(progress)
    head, _, picture = by_name["preview"]["picture"].partition(",")
    assert head == "data:image/png;base64"
    with av.open(io.BytesIO(base64.b64decode(picture))) as image:
        (frame,) = image.decode(video=0)
    assert (frame.height, frame.width) == (4, 4 * by_name["preview"]["pictures"])


def test_events_of_a_video_that_has_ended_are_its_status_alone(client, service):
    job = ask(client)
    ended(service, job)
    ((name, told),) = events_of(client.get(f"/v1/videos/{job}/events").text)
    assert (name, told["status"]) == ("status", "completed")


def test_a_connection_without_news_is_kept_open(client_of, idle, monkeypatch):
    monkeypatch.setattr(live, "_BEAT", 0.01)
    job = ask(client_of(idle))

    async def listen():
        told = live._told(idle, job)
        first, second = await anext(told), await anext(told)
        idle.broadcaster.close()  # as the server does in the end
        rest = [part async for part in told]
        return first, second, rest

    first, second, rest = asyncio.run(asyncio.wait_for(listen(), 10))
    assert first.startswith(b"event: status\ndata: ")
    assert second == b": nothing new\n\n"
    assert set(rest) <= {second}


def test_pictures_that_cannot_be_encoded_cost_no_video(client, service, monkeypatch, caplog):
    def full(*_):
        raise VideoError("the disk is full")

    monkeypatch.setattr(FragmentedFilm, "write", full)
    job = ask(client)
    assert ended(service, job).status == "completed"
    assert "live pictures end here: the disk is full" in caplog.text
    assert len(frames_of(client.get(f"/v1/videos/{job}/content").content)) == 24


def test_a_film_that_begins_again_ends_for_those_who_read_the_old_one(folder, tmp_path):
    """As when a batch fails, and each of its members is tried alone."""
    result = tmp_path / "video.mp4"
    path = live_path(result)
    path.write_bytes(b"old")
    with path.open("rb") as film:
        assert not live._is_gone(film)
        path.unlink()
        path.write_bytes(b"new")
        assert live._is_gone(film)
