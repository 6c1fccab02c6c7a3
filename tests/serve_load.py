"""A bounded load on one server of this machine: who is served, how soon, and with how much memory.

    python tests/serve_load.py                               200 requests, 20 at once, of sky-tiny
    python tests/serve_load.py --requests 40 --at-once 8     fewer

Starts `lvdm-rt serve` on 127.0.0.1 with a folder of its own and sends it mixed requests: short and
long videos, few and more steps, JSON and forms, one in ten continues an uploaded video, one in ten
is cancelled. Who is told to wait (429) waits and asks again. Every video is fetched and its frames
are counted. Prints a table; fails if a request is lost, or memory grows.
"""

import argparse
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import httpx
from toy_serving import ServerProcess

from lvdm_rt.video import ReadSpec, read_frames

LENGTHS = (8, 16, 32)
STEPS = (1, 2)
GROWTH = 1.10  # of memory, between the second and the last quarter of the run
LONGEST = 1200.0  # seconds, for all requests


@dataclass
class Load:
    """One server and what became of the requests to it."""

    server: ServerProcess
    folder: Path
    deadline: float
    film: bytes = b""
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    cancelling: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)

    def request(self, number: int) -> None:
        """Ask for one video and follow it to its end."""
        chance = random.Random(number)  # noqa: S311 - not for secrets
        with httpx.Client(base_url=self.server.url, timeout=60) as client:
            fields = {
                "num_frames": chance.choice(LENGTHS),
                "num_inference_steps": chance.choice(STEPS),
                "seed": number,
            }
            video = self.asked(client, fields, upload=chance.random() < 0.1)
            if chance.random() < 0.1:
                time.sleep(chance.uniform(0, 3))
                began = time.monotonic()
                told = client.delete(f"/v1/videos/{video['id']}").json()
                self.cancelling.append(time.monotonic() - began)
                self.outcomes["removed" if told["deleted"] else "cancelled"] += 1
                return
            video = self.ended(client, video["id"])
            self.outcomes[video["status"]] += 1
            if video["status"] == "completed":
                content = client.get(f"/v1/videos/{video['id']}/content").content
                self.check(content, fields["num_frames"], number)
                self.first.append(video["seconds_to_first_frame"])
                self.whole.append(video["seconds_to_completion"])

    def asked(self, client: httpx.Client, fields: dict[str, int], *, upload: bool) -> dict:
        """Ask until the server has room."""
        while True:
            if upload:
                form = {name: str(value) for name, value in fields.items()}
                files = {"input_reference": ("clip.mp4", self.film, "video/mp4")}
                answer = client.post("/v1/videos", data=form, files=files)
            else:
                answer = client.post("/v1/videos", json=fields)
            if answer.status_code != 429:
                return answer.raise_for_status().json()
            self.outcomes["told to wait"] += 1
            time.sleep(float(answer.headers["retry-after"]))
            self.check_time()

    def ended(self, client: httpx.Client, job: str) -> dict:
        """Poll until a job has ended."""
        while True:
            video = client.get(f"/v1/videos/{job}").raise_for_status().json()
            if video["status"] not in ("queued", "in_progress"):
                return video
            self.check_time()
            time.sleep(0.1)

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise TimeoutError("the requests were not served in time")

    def check(self, content: bytes, frames: int, number: int) -> None:
        """Make sure that a video is whole."""
        path = self.folder / f"fetched-{number}.mp4"
        path.write_bytes(content)
        spec = ReadSpec(size=(16, 16), fps=Fraction(8))
        self.outcomes["whole files"] += sum(map(len, read_frames(path, spec))) == frames
        path.unlink()

    def watch(self, ended: threading.Event) -> None:
        """Note how much memory the server takes, twice a second."""
        status = Path(f"/proc/{self.server.process.pid}/status")
        while not ended.wait(0.5):
            found = re.search(r"VmRSS:\s+(\d+)", status.read_text())
            if found:
                self.memory.append(int(found[1]) // 1024)


def table(load: Load, requests: int, seconds: float) -> Iterator[str]:
    """Yield what is told of a load."""
    yield f"{requests} requests in {seconds:.0f} s; " + ", ".join(
        f"{name} {count}" for name, count in sorted(load.outcomes.items())
    )
    yield "| seconds | p50 | p95 | most |"
    yield "|---|---|---|---|"
    rows = {"to first frame": load.first, "to whole file": load.whole, "to cancel": load.cancelling}
    for name, values in rows.items():
        cuts = statistics.quantiles(values, n=20, method="inclusive")
        yield f"| {name} | {statistics.median(values):.2f} | {cuts[-1]:.2f} | {max(values):.2f} |"
    quarter = len(load.memory) // 4
    before, after = load.memory[quarter : 2 * quarter], load.memory[-quarter:]
    yield f"memory, MiB: {max(before)} in the second quarter, {max(after)} in the last"


def run(requests: int, at_once: int, flags: list[str]) -> int:
    """Run the load and return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ServerProcess(folder / "videos", "--max-client-jobs", "32", *flags) as server:
            load = Load(server, folder, time.monotonic() + LONGEST)
            made = server.ended(server.ask("/v1/videos", {"num_frames": 16})["id"])
            load.film = httpx.get(f"{server.url}/v1/videos/{made['id']}/content").content
            began, ended = time.monotonic(), threading.Event()
            watch = threading.Thread(target=load.watch, args=(ended,))
            watch.start()
            with ThreadPoolExecutor(at_once) as pool:
                list(pool.map(load.request, range(requests)))
            ended.set()
            watch.join()
            lines = list(table(load, requests, time.monotonic() - began))
    sys.stdout.write("\n".join(lines) + "\n")
    told = load.outcomes
    lost = requests - told["completed"] - told["cancelled"] - told["removed"]
    quarter = len(load.memory) // 4
    flat = max(load.memory[-quarter:]) <= GROWTH * max(load.memory[quarter : 2 * quarter])
    return int(lost != 0 or told["whole files"] != told["completed"] or not flat)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--bundle", default="sky-tiny")
    asked = parser.parse_args()
    sys.exit(run(asked.requests, asked.at_once, ["--bundle", asked.bundle]))
