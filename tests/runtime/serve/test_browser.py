"""The page in a real browser: it plays what is being made, and what was made, pixel by pixel."""

from fractions import Fraction

import numpy as np
import pytest
from browser_times import CHROMIUM, times
from toy_serving import ServerProcess

from lvdm_engines.bundle import builtin_bundles
from lvdm_rt.video import ReadSpec, read_frames

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}"),
    pytest.mark.skipif("sky-tiny" not in builtin_bundles(), reason="there is no built-in model"),
]
TOKEN = "open sesame" * 2
FPS, FRAMES = 8, 64
# Goes to the middle of a frame, and gives its pixels as the browser shows them.
PIXELS = """async ([frame, fps]) => {
  const player = document.getElementById("player");
  player.loop = false;
  player.pause();
  const shown = new Promise((resolve) => player.addEventListener("seeked", resolve, {once: true}));
  player.currentTime = (frame + 0.5) / fps;
  await shown;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [player.videoWidth, player.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(player, 0, 0);
  const {data, width, height} = context.getImageData(0, 0, canvas.width, canvas.height);
  return {width, height, data: Array.from(data)};
}"""
PLAYS = "() => document.getElementById('player').currentTime > 0.2"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(tmp_path_factory.mktemp("served") / "videos") as server:
        yield server


@pytest.fixture
def opened(browser):
    """Open a page; nothing that it says may be an error."""
    contexts, said = [], []

    def opened(url, **how):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **how})
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda err: said.append(str(err)))
        page.on("console", lambda told: said.append(told.text) if told.type == "error" else None)
        page.goto(f"{url}/")
        return page

    yield opened
    for context in contexts:
        context.close()
    # Chromium says so of every answer with such a status, and the page is ready for them
    assert [text for text in said if "the server responded with a status of" not in text] == []


def fill(page, seed, frames=FRAMES):
    page.fill("[name=seconds]", str(frames / FPS))
    page.fill("[name=seed]", str(seed))


def made(page):
    """Wait until a video is there, and return its id."""
    page.wait_for_selector("#download:not([hidden])")
    return page.evaluate("document.querySelector('#gallery li:has([aria-current])').id")


def shown(page, frame):
    told = page.evaluate(PIXELS, [frame, FPS])
    return np.array(told["data"], np.uint8).reshape(told["height"], told["width"], 4)[..., :3]


def file_of(server, job, tmp_path):
    import httpx

    path = tmp_path / "made.mp4"
    path.write_bytes(httpx.get(f"{server.url}/v1/videos/{job}/content").content)
    spec = ReadSpec(size=(64, 64), fps=Fraction(FPS))
    return np.concatenate(list(read_frames(path, spec))).astype(int)


def test_a_browser_plays_a_video_while_it_is_made_and_afterwards(server, opened, tmp_path):
    page = opened(server.url)
    fill(page, seed=7)
    page.click("#make")
    page.wait_for_selector("#preview:not([hidden])")  # before there is any frame
    page.wait_for_selector("#player:not([hidden])")
    assert page.evaluate("document.getElementById('player').src").startswith("blob:")
    page.wait_for_function(PLAYS)
    assert page.evaluate("document.getElementById('player').buffered.start(0)") == 0
    job = made(page)
    page.wait_for_function("() => document.getElementById('player').loop")  # all of it has come
    wanted = file_of(server, job, tmp_path)
    assert len(wanted) == FRAMES
    for frame in (0, 7, 30, 63):
        # two encoders, and two ways from 4:2:0 to colours
        assert np.abs(shown(page, frame) - wanted[frame]).mean() < 4
    differ = np.abs(wanted[0] - wanted[63]).mean()
    assert differ > 8  # or any frame would do

    later = opened(server.url)
    later.click(f"#{job} button")
    later.wait_for_selector("#player:not([hidden])")
    later.wait_for_function(PLAYS)
    assert later.evaluate("document.getElementById('player').src").startswith(server.url)
    for frame in (0, 7, 30, 63):
        assert np.abs(shown(later, frame) - wanted[frame]).mean() < 3


def test_the_picture_is_there_within_two_seconds_of_the_first_frames(server, opened):
    page = opened(server.url)
    page.wait_for_selector("#model:not(:empty)")
    seen = times(page, seconds=8, seed=8)
    assert seen["playing"] - seen["frames"] < 2
    assert seen["asked"] < seen["picture"] < seen["playing"]


def test_a_browser_that_comes_late_begins_at_the_start(server, opened):
    page = opened(server.url)
    fill(page, seed=9, frames=384)
    page.click("#make")
    page.wait_for_function(PLAYS)
    late = opened(server.url)  # finds what is being made, and shows it
    late.wait_for_function(PLAYS)
    assert late.evaluate("document.getElementById('player').buffered.start(0)") == 0
    page.click("#cancel")
    for each in (page, late):
        each.wait_for_function(
            "() => document.getElementById('status').textContent.includes('cancelled')"
        )


def test_a_video_is_asked_for_and_cancelled_with_the_keyboard_alone(server, opened):
    page = opened(server.url)
    page.focus("[name=seconds]")
    page.keyboard.press("Control+A")
    page.keyboard.type("128")
    page.keyboard.press("Tab")
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    page.wait_for_selector("#cancel:not([hidden])")
    assert page.get_attribute("#status", "role") == "status"
    for _ in range(20):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.id") == "cancel":
            break
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.getElementById('status').textContent.includes('cancelled')"
    )
    assert ring != "none"


def test_a_phone_shows_all_of_the_page_without_scrolling_sideways(server, opened):
    page = opened(
        server.url, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True
    )
    fill(page, seed=7, frames=16)
    page.tap("#make")
    made(page)
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.evaluate(
        """[...document.querySelectorAll("button")].filter((button) => button.offsetParent)
            .map((button) => button.getBoundingClientRect().height).filter((high) => high < 44)"""
    )
    assert small == []


def test_what_was_wrong_is_said_where_it_is_read_out(server, opened):
    page = opened(server.url)
    page.evaluate("document.querySelector('form').noValidate = true")
    fill(page, seed=1, frames=100_000)
    with page.expect_response(lambda answer: answer.status == 400):
        page.click("#make")
    told = page.wait_for_selector("#problem:not([hidden])").inner_text()
    assert "100000 frames, expected at most" in told


def test_a_server_with_a_token_asks_for_it_once_in_a_tab(opened, tmp_path):
    with ServerProcess(tmp_path / "videos", LVDM_RT_TOKEN=TOKEN) as server:
        page = opened(server.url)
        page.fill("[name=token]", "let-me-in")
        page.keyboard.press("Enter")
        page.wait_for_selector("#wrong:not([hidden])")
        page.fill("[name=token]", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#door", state="hidden")
        fill(page, seed=2, frames=16)
        page.click("#make")
        made(page)
        page.wait_for_function(PLAYS)
        page.reload()  # the token stays, and the finished video is fetched with it
        page.click("#gallery button")
        page.wait_for_function(PLAYS)
        assert page.evaluate("document.getElementById('player').src").startswith("blob:")
        assert page.evaluate("localStorage.length") == 0
        assert "let-me-in" not in page.evaluate("JSON.stringify(sessionStorage)")


def test_a_video_is_asked_for_again_with_the_same_settings(server, opened):
    asked = {"num_frames": 12, "seed": 2**64 - 1, "preset": "fast", "guidance_scale": 1.3}
    first = server.ended(server.ask("/v1/videos", asked)["id"])
    assert (first["settings"]["guidance"], first["settings"]["refine"]) == (0.3, 1)
    page = opened(server.url)
    page.click(f"#{first['id']} button")
    page.click("#facts summary")
    assert str(2**64 - 1) in page.inner_text("#settings")
    page.click("#ask summary")
    page.select_option("[name=preset]", "balanced")
    page.click("#reuse")
    with page.expect_response(lambda answer: answer.request.method == "POST") as answer:
        page.click("#make")
    assert answer.value.json()["settings"] == first["settings"]
    made(page)


def test_older_videos_are_found_when_the_last_that_was_shown_is_removed(server, opened):
    for seed in range(25):
        job = server.ask("/v1/videos", {"num_frames": 8, "seed": seed})["id"]
        server.ask(f"/v1/videos/{job}", method="DELETE")
    page = opened(server.url)
    page.wait_for_selector("#more:not([hidden])")
    page.click("#gallery li:last-child button")
    page.click("#remove")
    page.wait_for_function("() => document.querySelectorAll('#gallery li').length === 23")
    page.click("#more")
    page.wait_for_function("() => document.querySelectorAll('#gallery li').length > 23")
    assert page.is_hidden("#problem")
