"""How long a browser waits for pictures: python tests/browser_times.py [VIDEOS]

Starts a server of the built-in model and Chromium, asks for videos on the page, one after another,
and prints the seconds from the click to the first coarse picture and to the first moving one, and
how much of the latter passes once frames are there.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from toy_serving import ServerProcess

CHROMIUM = Path("/usr/bin/chromium")
WATCH = """() => {
  const seen = (window.seen = {});
  const note = (name) => (seen[name] ??= performance.now() / 1000);
  const preview = document.getElementById("preview");
  const look = () => preview.hidden || note("picture");
  new MutationObserver(look).observe(preview, {attributes: true});
  document.getElementById("player").addEventListener("playing", () => note("playing"));
  document.getElementById("make").addEventListener("click", () => note("asked"));
  const fetched = window.fetch;
  window.fetch = (path, ...rest) => {
    if (String(path).endsWith("/stream")) note("frames");  // as an event has told
    return fetched(path, ...rest);
  };
}"""


def times(page, seconds: float, seed: int) -> dict[str, float]:
    """Ask for a video on a page that was just opened, and return when what was seen."""
    page.evaluate(WATCH)
    page.fill("[name=seconds]", str(seconds))
    page.fill("[name=seed]", str(seed))
    page.click("#make")
    page.wait_for_function("() => window.seen.playing")
    return page.evaluate("window.seen")


def main(videos: int) -> None:
    """Measure and print."""
    from playwright.sync_api import sync_playwright

    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder) / "videos", "--threads", "2") as server,
        sync_playwright() as started,
    ):
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        told = []
        for seed in range(videos):
            page = browser.new_page()
            page.goto(f"{server.url}/")
            page.wait_for_selector("#model:not(:empty)")
            told.append(times(page, seconds=8, seed=seed))
            page.wait_for_selector("#download:not([hidden])", timeout=120_000)
            page.close()
        browser.close()
    lines = [f"seconds, {videos} videos of 64 frames   median   worst"]
    for name, start, end in (
        ("click to coarse picture", "asked", "picture"),
        ("click to moving picture", "asked", "playing"),
        ("frames to moving picture", "frames", "playing"),
    ):
        waits = [seen[end] - seen[start] for seen in told]
        lines.append(f"{name:30} {statistics.median(waits):8.2f} {max(waits):7.2f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10)
