"""Who may come in, whatever is asked for."""

import pytest

from lvdm_engines.errors import OptionsError
from lvdm_rt.serve.server import ServeJob, check_open_to, known_hosts

TOKEN = "a-token-that-nobody-guesses"  # noqa: S105 - of a test
JSON = {"Content-Type": "application/json"}


def error(answer):
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:80", "LOCALHOST"])
def test_names_of_this_machine_are_served(idle, client_of, host):
    assert client_of(idle).get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost."])
def test_a_name_that_was_bound_to_this_machine_by_others_is_not(idle, client_of, host):
    assert error(client_of(idle).get("/v1/videos", headers={"Host": host})) == (421, "unknown_host")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0:0:0:0:0:0:0:1", "localhost"])
def test_whoever_needs_no_token_needs_a_name_of_this_machine(idle, client_of, host):
    client = client_of(idle, hosts=known_hosts(ServeJob(host=host)))
    name = f"[{host}]" if ":" in host else host
    assert client.get("/v1/videos", headers={"Host": f"{name}:8000"}).status_code == 200
    answer = client.get("/v1/videos", headers={"Host": "evil.example"})
    assert error(answer) == (421, "unknown_host")


def test_other_names_are_those_that_are_allowed_in_any_case(idle, client_of):
    job = ServeJob(host="0.0.0.0", hosts=("Films.example",))  # noqa: S104
    client = client_of(idle, hosts=known_hosts(job))
    assert client.get("/v1/videos", headers={"Host": "films.example"}).status_code == 200
    assert known_hosts(ServeJob(host="0.0.0.0")) is None  # noqa: S104


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer ä".encode()},
    ],
)
def test_without_the_token_nothing_is_told_but_that_it_lives(idle, client_of, headers):
    client = client_of(idle, token=TOKEN)
    for path in ("/v1/videos", "/v1/models", "/metrics", "/v1/videos/video_0/content", "/x"):
        answer = client.get(path, headers=headers)
        assert error(answer) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert error(client.post("/v1/videos", json={}, headers=headers))[0] == 401
    assert error(client.delete("/v1/videos/video_0", headers=headers))[0] == 401
    assert client.get("/health", headers=headers).status_code == 200


def test_with_the_token_everything_is_served(idle, client_of):
    client = client_of(idle, token=TOKEN)
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {TOKEN}"}
        assert client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_sites_change_nothing(idle, client_of, headers):
    client = client_of(idle)
    answer = client.post("/v1/videos", json={"num_frames": 8}, headers=headers)
    assert error(answer) == (403, "cross_site")
    assert error(client.delete("/v1/videos/video_0", headers=headers)) == (403, "cross_site")
    assert idle.store.count("queued") == 0


def test_the_own_page_and_sites_that_are_let_in_may(idle, client_of):
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    asked = {"json": {"num_frames": 8}}
    assert client_of(idle).post("/v1/videos", **asked, headers=own).status_code == 200
    client = client_of(idle, origins=frozenset({"https://films.example"}))
    other = {"Origin": "https://films.example", "Sec-Fetch-Site": "cross-site"}
    answer = client.post("/v1/videos", **asked, headers=other)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://films.example"


def test_other_sites_may_read_nothing_unless_they_are_let_in(idle, client_of):
    answer = client_of(idle).get("/v1/videos", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_bodies_that_a_page_may_send_unasked_are_refused(idle, client_of, kind):
    answer = client_of(idle).post("/v1/videos", content=b"{}", headers={"Content-Type": kind})
    assert error(answer) == (415, "unsupported_media_type")


def test_a_body_is_limited_whether_or_not_its_length_is_told(idle, client_of):
    client = client_of(idle, fields=1000)
    large = b'{"prompt": "' + b" " * 2000 + b'"}'
    assert error(client.post("/v1/videos", content=large, headers=JSON)) == (413, "too_large")
    parts = (large[i : i + 100] for i in range(0, len(large), 100))
    assert error(client.post("/v1/videos", content=parts, headers=JSON)) == (413, "too_large")
    form = {"input_reference": ("clip.mp4", b"0" * 3000)}
    answer = client_of(idle, body=2000).post("/v1/videos", files=form)
    assert error(answer) == (413, "too_large")
    assert list((idle.store.folder / "conditions").iterdir()) == []


def test_a_length_that_is_none_is_refused(idle, client_of):
    headers = {**JSON, "Content-Length": "-5"}
    assert error(client_of(idle).post("/v1/videos", content=b"{}", headers=headers))[0] == 413


@pytest.mark.parametrize("way", [{"proxies": ("127.0.0.1",)}, {"hosts": ("films.example",)}])
def test_what_others_reach_through_a_proxy_needs_a_token(way):
    with pytest.raises(OptionsError, match="by which others reach this server"):
        check_open_to(ServeJob(**way))
    check_open_to(ServeJob(**way, token="long enough for a token"))  # noqa: S106
