"""What the routes answer, of a service that makes videos from arrays."""

import re

import pytest
from toy_serving import serving, until

from lvdm_rt.serve.limits import ServeLimits
from lvdm_rt.video import read_sidecar

FORM = {"prompt": "", "num_frames": "12", "seed": "3"}


def ended(client, job):
    return until(
        lambda: (
            (told := client.get(f"/v1/videos/{job}").json())["status"]
            not in ("queued", "in_progress")
            and told
        )
    )


def ask(client, **fields):
    return client.post("/v1/videos", json={"num_frames": 8, "seed": 1, **fields})


def test_a_video_is_made_and_can_be_fetched_whole_or_in_parts(client, service):
    told = ask(client, num_frames=12).json()
    assert (told["object"], told["size"], told["seconds"]) == ("video", "16x16", "1.5")
    done = ended(client, told["id"])
    assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None)
    assert done["completed_at"] >= done["created_at"]
    assert 0 < done["seconds_to_first_frame"] <= done["seconds_to_completion"]
    content = client.get(f"/v1/videos/{told['id']}/content")
    assert content.headers["content-type"] == "video/mp4"
    assert content.headers["content-disposition"] == f'attachment; filename="{told["id"]}.mp4"'
    part = client.get(f"/v1/videos/{told['id']}/content", headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    sidecar = read_sidecar(service.store.result(told["id"]))
    assert (sidecar["seed"], sidecar["frames"], sidecar["bundle"]) == (1, 12, "fake")


@pytest.mark.parametrize("variant", ["thumbnail", "spritesheet"])
def test_a_picture_of_a_video_is_a_variant_of_its_content(client, variant):
    job = ask(client).json()["id"]
    ended(client, job)
    content = client.get(f"/v1/videos/{job}/content", params={"variant": variant})
    assert (content.headers["content-type"], content.content[1:4]) == ("image/png", b"PNG")
    assert client.get(f"/v1/videos/{job}/content?variant=audio").status_code == 400


def test_a_form_asks_for_the_same_as_json(client):
    told = client.post("/v1/videos", files={name: (None, text) for name, text in FORM.items()})
    asked = ask(client, prompt="", num_frames=12, seed=3).json()
    assert told.json()["settings"] == asked["settings"]


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"num_frame": 8}, "unknown_parameter", "unknown parameter 'num_frame'"),
        ({"num_frames": "many"}, "invalid_type", "Expected `int | null`"),
        ({"num_frames": 0}, "invalid_value", "got frames 0, expected a whole number from 1"),
        ({"num_frames": 9999}, "too_many_frames", "got 9999 frames, expected at most 4096"),
        ({"seconds": 2}, "invalid_value", "got both seconds and num_frames"),
        ({"num_frames": None, "seconds": "nan"}, "invalid_value", "got seconds nan"),
        ({"model": "sora-2"}, "model_not_found", "got model 'sora-2', but this server has fake"),
        ({"size": "1280x720"}, "invalid_value", "but fake makes 16x16"),
        ({"prompt": "a cat"}, "model_reads_no_text", "fake reads no text; send it empty"),
        ({"negative_prompt": "a cat"}, "model_reads_no_text", "reads no text"),
        ({"num_inference_steps": 10**6}, "invalid_value", "got steps 1000000"),
        ({"guidance_scale": 0.5}, "invalid_value", "got guidance_scale 0.5, expected"),
        ({"fps": 0}, "invalid_value", "got fps 0"),
        ({"seed": -1}, "invalid_value", "got seed -1"),
        ({"preset": "slow"}, "invalid_value", "got preset 'slow'"),
        ({"input_reference": "clip.mp4"}, "invalid_value", "upload the file itself"),
    ],
)
def test_what_cannot_be_met_is_told_in_one_line(client, fields, code, said):
    answer = ask(client, **fields)
    error = answer.json()["error"]
    assert answer.status_code in (400, 404)
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert said in error["message"]
    assert "/" not in error["message"].replace("GET /v1/videos", "")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(client, body):
    answer = client.post("/v1/videos", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "expected one" in answer.json()["error"]["message"]


def test_guidance_scale_is_one_more_than_our_weight(client):
    assert ask(client, guidance_scale=2.5).json()["settings"]["guidance"] == 1.5


def test_seconds_count_frames_at_the_rate_that_is_asked_for(client):
    assert ask(client, num_frames=None, seconds="2").json()["num_frames"] == 16
    told = ask(client, num_frames=None, seconds=2, fps=4).json()
    assert (told["num_frames"], told["seconds"], told["fps"]) == (8, "2", 4)


def test_a_seed_is_drawn_where_none_is_asked_for(client):
    seeds = {ask(client, seed=None).json()["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_jobs_are_listed_in_pages(idle, client_of):
    client = client_of(idle)
    jobs = [ask(client).json()["id"] for _ in range(5)]
    page = client.get("/v1/videos", params={"limit": 2, "order": "asc"}).json()
    assert ([v["id"] for v in page["data"]], page["has_more"]) == (jobs[:2], True)
    rest = {"limit": 3, "order": "asc", "after": page["last_id"]}
    page = client.get("/v1/videos", params=rest).json()
    assert ([v["id"] for v in page["data"]], page["has_more"]) == (jobs[2:], False)
    assert [v["id"] for v in client.get("/v1/videos").json()["data"]] == jobs[::-1]
    for bad in (
        {"limit": 0},
        {"limit": 101},
        {"limit": "x"},
        {"limit": "0000000010000"},
        {"order": "up"},
    ):
        assert client.get("/v1/videos", params=bad).status_code == 400
    assert client.get("/v1/videos", params={"after": "video_0"}).status_code == 404


def test_deleting_removes_what_has_ended_with_its_files(client, folder):
    job = ask(client).json()["id"]
    ended(client, job)
    client.get(f"/v1/videos/{job}/content?variant=thumbnail")
    told = client.delete(f"/v1/videos/{job}").json()
    assert told == {"id": job, "object": "video.deleted", "deleted": True}
    assert client.get(f"/v1/videos/{job}").status_code == 404
    assert client.delete(f"/v1/videos/{job}").status_code == 404
    assert list(folder.rglob(f"*{job}*")) == []


def test_deleting_cancels_what_waits(idle, client_of):
    client = client_of(idle)
    job = ask(client).json()["id"]
    assert client.delete(f"/v1/videos/{job}").json()["status"] == "cancelled"
    assert client.get(f"/v1/videos/{job}").json()["status"] == "cancelled"
    assert client.delete(f"/v1/videos/{job}").json()["deleted"] is True


def test_no_content_is_told_before_there_is_any(idle, client_of):
    client = client_of(idle)
    answer = client.get(f"/v1/videos/{ask(client).json()['id']}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_content")


def test_the_same_key_asks_for_the_same_job_once(client):
    key = {"Idempotency-Key": "my-first"}
    first = client.post("/v1/videos", json={"num_frames": 8}, headers=key).json()
    again = client.post("/v1/videos", json={"num_frames": 8}, headers=key).json()
    assert (first["id"], first["seed"]) == (again["id"], again["seed"])
    other = client.post("/v1/videos", json={"num_frames": 9}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("limits", "code"),
    [(ServeLimits(queue=2), "queue_full"), (ServeLimits(client_jobs=2), "too_many_jobs")],
)
def test_too_much_is_refused_with_a_time_to_wait(folder, client_of, limits, code):
    with serving(folder, start=False, limits=limits) as service:
        client = client_of(service)
        assert [ask(client).status_code for _ in range(3)] == [200, 200, 429]
        answer = ask(client)
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert int(answer.headers["retry-after"]) >= 1


def test_models_health_and_readiness_are_told(service, client):
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["fake"]
    assert client.get("/health").status_code == 200
    assert client.get("/ready").status_code == 200
    service.stop(0)
    assert client.get("/ready").status_code == 503
    assert ask(client).status_code == 503
    assert client.get("/health").status_code == 200


def test_metrics_have_the_names_that_are_documented(client):
    ended(client, ask(client).json()["id"])
    text = client.get("/metrics").text
    names = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert names == {
        "lvdm_jobs_total",
        "lvdm_queue_jobs",
        "lvdm_job_seconds",
        "lvdm_time_to_first_frame_seconds",
        "lvdm_step_seconds",
        "lvdm_frames_total",
    }
    assert 'lvdm_jobs_total{status="completed"} 1.0' in text
    assert 'lvdm_step_seconds_count{graph="predict"}' in text
    assert "lvdm_frames_total 8.0" in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("PUT", "/v1/videos", 405), ("GET", "/v1/videos/../x", 404)],
)
def test_what_is_not_there_is_an_error_of_the_same_shape(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "code", "param"}


def test_a_fault_of_the_server_tells_no_trace(service, client, monkeypatch):
    def broken(*_):
        raise RuntimeError("/etc/secret is at line 7")

    monkeypatch.setattr(service.store, "get", broken)
    answer = client.get("/v1/videos/video_0")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "server_error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_requests_on_their_way_are_limited_as_jobs_are(folder, client_of, monkeypatch):
    with serving(folder, start=False, limits=ServeLimits(client_jobs=1)) as service:
        client, accept, answers = client_of(service), service.accept, []

        def slowly(asking):  # and meanwhile comes another
            monkeypatch.setattr(service, "accept", accept)
            answers.append(ask(client))
            return accept(asking)

        monkeypatch.setattr(service, "accept", slowly)
        assert ask(client).status_code == 200
        assert [answer.status_code for answer in answers] == [429]
        assert answers[0].json()["error"]["code"] == "too_many_requests"
        assert answers[0].headers["retry-after"] == "1"
        assert ask(client).json()["error"]["code"] == "too_many_jobs"  # none is on its way
