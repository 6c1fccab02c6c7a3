"""Real servers: clients of others, kills, signals, and who may be served at all."""

import signal
import subprocess
import sys
import threading
import time
import warnings

import httpx
import numpy as np
import pytest
from toy_files import GENERATE, with_tests_on_path
from toy_frames import write_bundle
from toy_serving import ServerProcess, until

from lvdm_rt.video import ReadSpec, read_frames

pytestmark = pytest.mark.slow
LONG = {"num_frames": 200, "num_inference_steps": 50, "seed": 1}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture
def start(toy, tmp_path):
    """Start a server of the toy model, or another, in one folder."""
    started = []

    def start(*flags, bundle=toy, **environment):
        server = ServerProcess(tmp_path / "videos", "--bundle", str(bundle), *flags, **environment)
        started.append(server)
        assert server.url, server.process.communicate()
        return server

    yield start
    for server in started:
        server.__exit__()


def refused(*flags, **environment):
    """What a server says that does not start."""
    words = [sys.executable, "-c", GENERATE, "serve", *map(str, flags)]
    how = {"capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(words, env={**with_tests_on_path(), **environment}, **how)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    return done.stderr


@pytest.mark.parametrize(
    ("bundle", "prompt", "size"), [("sky-tiny", "", "64x64"), ("sky", "a clear sky", "128x128")]
)
def test_the_openai_client_creates_polls_and_downloads_a_video(start, bundle, prompt, size):
    openai = pytest.importorskip("openai")
    token = "a-token-that-nobody-guesses"  # noqa: S105 - of a test
    server = start(bundle=bundle, LVDM_RT_TOKEN=token)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=token) as client:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of their service, not of the API
            asked = {"prompt": prompt, "model": bundle, "seconds": "1", "size": size}
            extra = {"num_inference_steps": 2, "seed": 3}
            video = client.videos.create(**asked, extra_body=extra)
            assert (video.status, video.prompt or "") == ("queued", prompt)
            while video.status in ("queued", "in_progress"):
                time.sleep(0.1)
                video = client.videos.retrieve(video.id)
            assert (video.status, video.progress, video.seconds) == ("completed", 100, "1")
            content = client.videos.download_content(video.id).read()
            picture = client.videos.download_content(video.id, variant="thumbnail").read()
            assert [v.id for v in client.videos.list(limit=5)] == [video.id]
            file = ("clip.mp4", content, "video/mp4")
            continued = client.videos.create(**asked, input_reference=file, extra_body=extra)
            assert client.videos.delete(continued.id).id == continued.id
            with pytest.raises(openai.BadRequestError, match=f"makes {size}"):
                client.videos.create(**{**asked, "size": "720x1280"})
            assert client.videos.delete(video.id).deleted
        assert [model.id for model in client.models.list()] == [bundle]
        with pytest.raises(openai.AuthenticationError, match="no valid token"):
            client.with_options(api_key="wrong").models.list()
    assert content[4:8] == b"ftyp"
    assert picture.startswith(b"\x89PNG")


def frames(path):
    return np.concatenate(list(read_frames(path, ReadSpec(size=(16, 16), fps=8))))


@pytest.mark.parametrize(
    "steps", [1, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (0, 12))]
)
def test_what_a_killed_server_had_is_neither_lost_nor_made_twice(start, tmp_path, steps):
    server = start("--exact")
    done = server.ask("/v1/videos", {"num_frames": 8, "seed": 5})["id"]
    server.ended(done)
    jobs = [server.ask("/v1/videos", {**LONG, "seed": seed})["id"] for seed in (1, 2)]
    jobs.append(server.ask("/v1/videos", {"num_frames": 8, "num_inference_steps": 3})["id"])
    until(lambda: len(list((tmp_path / "videos" / "work").rglob("*.npy"))) >= steps)
    server.end(signal.SIGKILL)
    kept = (tmp_path / f"videos/results/{done}.mp4").stat().st_mtime_ns
    again = start("--exact")
    listed = again.ask("/v1/videos?order=asc")["data"]
    assert [video["id"] for video in listed] == [done, *jobs]
    assert [again.ended(job)["status"] for job in jobs] == ["completed"] * 3
    assert (tmp_path / f"videos/results/{done}.mp4").stat().st_mtime_ns == kept
    other = again.ask("/v1/videos", LONG)["id"]  # the same video, undisturbed
    again.ended(other)
    results = [tmp_path / f"videos/results/{job}.mp4" for job in (jobs[0], other)]
    assert (frames(results[0]) == frames(results[1])).all()
    assert again.end(signal.SIGTERM) == (0, "")
    left = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert left == ["conditions", "jobs.sqlite3", "results", "work"]
    assert not list((tmp_path / "videos" / "work").iterdir())


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_parks_what_is_being_made(start, kind):
    server = start("--grace", "0")
    job = server.ask("/v1/videos", {**LONG, "num_frames": 4000})["id"]
    until(lambda: server.ask(f"/v1/videos/{job}")["status"] == "in_progress")
    began = time.monotonic()
    assert server.end(kind) == (0, "")
    assert time.monotonic() - began < 10
    again = start()
    assert again.ask(f"/v1/videos/{job}")["status"] == "in_progress"
    assert again.ask(f"/v1/videos/{job}", method="DELETE")["status"] == "cancelled"


def test_a_folder_has_one_server_and_one_model(start, tmp_path):
    server = start("--grace", "0")
    folder = tmp_path / "videos"
    said = refused("--folder", folder, "--port", "0")
    assert "is in use by another server; stop it, or choose another --folder" in said
    server.ask("/v1/videos", {**LONG, "num_frames": 4000})
    server.end(signal.SIGTERM)
    said = refused("--folder", folder, "--port", "0", "--backend", "cpu", "-q")
    assert "has unfinished jobs of toy, which is not the bundle to be served" in said


def test_a_port_that_is_taken_is_told_before_anything_is_opened(start, tmp_path):
    port = start().url.rpartition(":")[2]
    said = refused("--folder", tmp_path / "other", "--port", port)
    assert f"cannot listen on 127.0.0.1 port {port}" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "films.example"])  # noqa: S104
def test_no_other_address_is_served_without_a_token(tmp_path, host):
    said = refused("--folder", tmp_path, "--host", host)
    assert f"got host {host}, which others can reach, and no token" in said


@pytest.mark.parametrize("token", ["", "short"])
def test_a_token_file_must_hold_one(tmp_path, token):
    (tmp_path / "token").write_text(token)
    said = refused("--folder", tmp_path / "videos", "--token-file", tmp_path / "token")
    assert "holds no token" in said or "got a token of 5 characters" in said


def test_with_a_token_all_addresses_can_be_served(start, tmp_path):
    (tmp_path / "token").write_text("a-token-that-nobody-guesses\n")
    server = start("--host", "0.0.0.0", "--token-file", str(tmp_path / "token"))  # noqa: S104
    url = server.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    assert httpx.get(f"{url}/v1/models").status_code == 401
    headers = {"Authorization": "Bearer a-token-that-nobody-guesses"}
    assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200


def test_a_body_that_never_comes_holds_up_nobody(start):
    server = start()
    slow = threading.Event()

    def dribble():
        yield b'{"num_frames": '
        slow.wait(20)
        yield b"8}"

    sender = threading.Thread(
        target=lambda: httpx.post(
            f"{server.url}/v1/videos",
            content=dribble(),
            headers={"Content-Type": "application/json"},
            timeout=30,
        )
    )
    sender.start()
    began = time.monotonic()
    assert server.ask("/health") == {"status": "ok"}
    assert time.monotonic() - began < 5
    slow.set()
    sender.join()
    assert server.end(signal.SIGTERM) == (0, "")
