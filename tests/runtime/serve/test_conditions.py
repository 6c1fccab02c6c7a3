"""Videos that clients upload: read in a process of its own, or refused in one line."""

import numpy as np
import pytest
from toy_serving import serving, until

from lvdm_rt.serve import conditions
from lvdm_rt.serve.api import VideoRequest
from lvdm_rt.serve.limits import ServeLimits
from lvdm_rt.serve.service import Asking

pytestmark = pytest.mark.slow  # each starts a process


def upload(client, content, name="clip.mp4", **fields):
    form = {"num_frames": "8", "seed": "1", **fields}
    return client.post("/v1/videos", data=form, files={"input_reference": (name, content)})


@pytest.fixture
def film(client, service):
    job = client.post("/v1/videos", json={"num_frames": 24, "seed": 5}).json()["id"]
    until(lambda: service.get(job).has_ended)
    return service.result(job).read_bytes()


def test_an_uploaded_video_is_continued_and_then_forgotten(client, service, film):
    told = upload(client, film).json()
    assert told["continues_video"] is True
    until(lambda: service.get(told["id"]).has_ended)
    assert service.get(told["id"]).status == "completed"
    other = upload(client, film, seed="1").json()["id"]
    until(lambda: service.get(other).has_ended)
    assert service.result(other).read_bytes() == service.result(told["id"]).read_bytes()
    until(lambda: not any((service.store.folder / "conditions").iterdir()))


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"", "a.mp4"), (b"no film" * 999, "a.mp4"), (b"#EXTM3U\n/etc/passwd", "../../a.m3u8")],
)
def test_what_is_no_video_is_refused_without_a_path(client, service, content, name):
    answer = upload(client, content, name)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_video")
    assert error["message"].startswith("input_reference: ")
    assert "/" not in error["message"]
    assert list((service.store.folder / "conditions").iterdir()) == []


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_form_that_was_cut_is_refused_and_not_taken_without_its_video(client, service, kept):
    parts = {"input_reference": ("clip.mp4", b"0" * 3000)}
    whole = client.build_request("POST", "/v1/videos", data={"num_frames": "8"}, files=parts)
    body = whole.read()
    headers = {"content-type": whole.headers["content-type"]}
    answer = client.post("/v1/videos", content=body[: int(kept * len(body))], headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_whole")
    assert service.store.page(None, 9, newest=True) == []
    assert list((service.store.folder / "conditions").iterdir()) == []


def test_a_reader_that_breaks_or_hangs_is_a_refusal(client, film, monkeypatch):
    monkeypatch.setattr(conditions, "_START", -59.99)
    assert "takes too long" in upload(client, film).json()["error"]["message"]


def test_a_reader_without_enough_memory_is_a_refusal(service, film, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(film)
    reader = conditions.ConditionReader(ServeLimits(upload_memory=1 << 20))
    wanted = conditions.WantedFrames(count=4, size=(16, 16), fps=8)
    with pytest.raises(conditions.RefusedError, match=r"Cannot allocate|too much memory"):
        reader.read(tmp_path / "clip.mp4", wanted, tmp_path / "frames.npy")


def test_frames_are_kept_at_the_size_of_the_model(film, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(film)
    wanted = conditions.WantedFrames(count=4, size=(8, 12), fps=8)
    sha256 = conditions.ConditionReader(ServeLimits()).read(
        tmp_path / "clip.mp4", wanted, tmp_path / "frames.npy"
    )
    frames = conditions.load_frames(tmp_path / "frames.npy")
    assert (frames.shape, frames.dtype, len(sha256)) == ((4, 8, 12, 3), np.uint8, 64)


def test_a_job_that_is_asked_for_twice_at_once_has_its_frames_once(film, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(film)
    fields = VideoRequest(num_frames=8)
    asking = Asking(fields=fields, client="a", key="k", upload=tmp_path / "clip.mp4")
    with serving(tmp_path / "other", start=False) as service:
        read, jobs = service._conditions.read, []

        def slowly(*how):
            service._conditions.read = read
            jobs.append(service.accept(asking))
            return read(*how)

        service._conditions.read = slowly
        jobs.append(service.accept(asking))
        assert jobs[0] == jobs[1]
        kept = [path.name for path in (service.store.folder / "conditions").iterdir()]
        assert kept == [f"{jobs[0].id}.npy"]
