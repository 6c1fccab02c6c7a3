"""The page: what it is made of, who may have it, and that it needs nothing from elsewhere."""

import re
from importlib.resources import files

import pytest

PARTS = sorted(file.name for file in files("lvdm_rt.serve").joinpath("page").iterdir())
TOKEN = "sesame" * 4


@pytest.fixture
def closed(idle, client_of):
    """A client of a server that asks for a token."""
    return client_of(idle, token=TOKEN)


def text_of(name):
    return files("lvdm_rt.serve").joinpath("page", name).read_text("utf-8")


def test_the_page_comes_without_a_token_and_tells_of_no_job(closed):
    page = closed.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert closed.get("/v1/videos").status_code == 401
    assert closed.get("/v1/models").status_code == 401


def test_everything_that_the_page_names_is_there(closed):
    named = set(re.findall(r'(?:src|href)="([^"]+)"', text_of("index.html")))
    assert named == {"page/icon.svg", "page/page.css", "page/page.js"}
    for name in PARTS:
        text = text_of(name) if name.endswith(".js") else ""
        named |= {f"page/{found}" for found in re.findall(r'from "\./([^"]+)"', text)}
    assert named == {f"page/{name}" for name in PARTS if name != "index.html"}
    for path in named:
        answer = closed.get(f"/{path}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_browsers_may_load_nothing_from_elsewhere(closed):
    policy = closed.get("/").headers["content-security-policy"]
    told = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert told["default-src"] == told["frame-ancestors"] == told["base-uri"] == "'none'"
    assert told["script-src"] == told["style-src"] == told["connect-src"] == "'self'"
    assert "unsafe" not in policy
    for name in PARTS:
        elsewhere = re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]+\S*", text_of(name))
        assert set(elsewhere) <= {'http://www.w3.org/2000/svg"'}


def test_nothing_in_the_page_runs_or_styles_inline():
    page = text_of("index.html")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)|javascript:", page)


def test_every_field_has_a_label_and_every_button_says_what_it_does():
    page = text_of("index.html")
    labelled = "".join(re.findall(r"<label.*?</label>", page, re.DOTALL))
    fields = re.findall(r"<(?:input|select|textarea)[^>]*name=\"(\w+)\"", page)
    assert fields
    assert [name for name in fields if f'name="{name}"' not in labelled] == []
    assert all(re.findall(r"<button[^>]*>([^<]+)</button>", page))


def test_the_model_tells_what_the_page_needs(idle, client_of):
    told = client_of(idle).get("/v1/models").json()["data"][0]["lvdm_rt"]
    assert (told["size"], told["fps"], told["steps"]) == ("16x16", 8.0, 4)
    assert (told["frames"], told["max_frames"]) == (64, 4096)
    assert (told["reads_text"], told["previews"]) == (False, False)
    assert {"fast", "balanced", "paper"} <= set(told["presets"])
