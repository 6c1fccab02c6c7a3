"""Kills of a server by the dozen: is any job that was accepted lost, or made twice?

    python tests/serve_kills.py              20 cases
    python tests/serve_kills.py --cases 100  more

Each case sends jobs of a toy model to `lvdm-rt serve` on 127.0.0.1, each under a key of its own,
and kills it (SIGKILL) one to three times: at a random moment, or in a state of a job that is drawn,
with requests on their way. After the last start what had no answer is sent again under its key. In
the end each request has one job, completed with the frames of an undisturbed server, or cancelled;
and nothing else is in the folder. Prints what was met; fails if a case did not hold.
"""

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import httpx
import numpy as np
from toy_frames import write_bundle
from toy_serving import ServerProcess, until

from lvdm_rt.video import ReadSpec, read_frames

KINDS = (
    {"num_frames": 16, "num_inference_steps": 5, "seed": 1},
    {"num_frames": 200, "num_inference_steps": 50, "seed": 2},
    {"num_frames": 200, "num_inference_steps": 50, "seed": 3},
    {"num_frames": 60, "num_inference_steps": 20, "seed": 4},
)
STATES = ("none", "queued", "clips", "writing", "whole", "random")


class Case:
    """One folder, the requests to its servers, and what each was answered."""

    def __init__(self, folder: Path, toy: Path, chance: random.Random) -> None:
        self.folder, self.toy, self.chance = folder, toy, chance
        self.answered: dict[str, str] = {}
        self.deleted: set[str] = set()

    def start(self) -> ServerProcess:
        return ServerProcess(self.folder, "--bundle", str(self.toy), "--exact")

    def send(self, server: ServerProcess) -> None:
        """Ask for what has no answer yet."""
        for number, fields in enumerate(KINDS):
            key = f"job-{number}"
            if key not in self.answered:
                with suppress(httpx.TransportError):  # it was killed
                    headers = {"Idempotency-Key": key}
                    told = server.ask("/v1/videos", fields, headers=headers)
                    self.answered[key] = told["id"]

    def reach(self, state: str) -> None:
        """Wait for a moment in which the server is killed."""
        signs = {
            "clips": "work/*/video-*/*.npy",
            "writing": "results/.*.mp4.*.partial",
            "whole": "results/*.mp4",
        }
        deadline = time.monotonic() + 20
        if state in signs:
            while not any(self.folder.glob(signs[state])) and time.monotonic() < deadline:
                time.sleep(0.0005)
            time.sleep(self.chance.choice((0, 0, 0.01)))
        elif state == "random":
            time.sleep(self.chance.uniform(0, 2))
        elif state == "queued":
            until(lambda: self.answered)

    def kill(self, state: str) -> None:
        """Start, send, and kill."""
        with self.start() as server:
            sender = threading.Thread(target=self.send, args=(server,))
            sender.start()
            self.reach(state)
            if self.answered and self.chance.random() < 0.3:
                job = self.chance.choice(sorted(self.answered.values()))
                with suppress(httpx.TransportError, AssertionError):  # it is deleted already
                    self.deleted.add(job)
                    server.ask(f"/v1/videos/{job}", method="DELETE")
            server.end(signal.SIGKILL)
            sender.join()

    def finish(self, whole: dict[int, np.ndarray]) -> Counter[str]:
        """Let the last server end all jobs, and look at what there is."""
        met: Counter[str] = Counter()
        with self.start() as server:
            self.send(server)
            for job in self.answered.values():
                if job not in self.deleted:
                    server.ended(job)
            until(lambda: "in_progress" not in str(server.ask("/v1/videos?limit=100")))
            listed = server.ask("/v1/videos?limit=100")["data"]
            assert len({video["seed"] for video in listed}) == len(listed), "made twice"
            seeds = {video["id"]: video["seed"] for video in listed}
            for job in self.answered.values():
                assert job in seeds or job in self.deleted, f"{job} is lost"
            for video in listed:
                met[video["status"]] += 1
                path = self.folder / "results" / f"{video['id']}.mp4"
                if video["status"] == "completed":
                    assert (frames(path) == whole[video["seed"]]).all(), f"{path} differs"
                else:
                    assert video["status"] == "cancelled", video
                    assert video["id"] in self.deleted, f"{video['id']} was never cancelled"
                    assert not path.exists()
            assert server.end(signal.SIGTERM)[0] == 0
        made = {f"{v['id']}.mp4{end}" for v in listed for end in ("", ".json")
                if v["status"] == "completed"}  # fmt: skip
        assert {path.name for path in (self.folder / "results").iterdir()} == made, "left over"
        assert not any((self.folder / "work").iterdir()), "clips are left over"
        return met


def frames(path: Path) -> np.ndarray:
    spec = ReadSpec(size=(16, 16), fps=Fraction(8))
    return np.concatenate(list(read_frames(path, spec)))


def undisturbed(folder: Path, toy: Path) -> dict[int, np.ndarray]:
    """Return the frames of each seed, of a server that nobody kills."""
    case = Case(folder, toy, random.Random(0))  # noqa: S311 - not for secrets
    with case.start() as server:
        case.send(server)
        jobs = [server.ended(job) for job in case.answered.values()]
    return {job["seed"]: frames(folder / "results" / f"{job['id']}.mp4") for job in jobs}


def run(cases: int) -> int:
    """Try the cases and return the exit code."""
    met: Counter[str] = Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        toy = write_bundle(place / "toy")
        whole = undisturbed(place / "undisturbed", toy)
        for number in range(cases):
            chance = random.Random(number)  # noqa: S311 - not for secrets
            case = Case(place / f"case-{number}", toy, chance)
            try:
                for _ in range(chance.randint(1, 3)):
                    state = chance.choice(STATES)
                    met[f"killed at {state}"] += 1
                    case.kill(state)
                met += case.finish(whole)
            except AssertionError as err:
                failed += 1
                sys.stdout.write(f"case {number}: {err}\n")
    told = ", ".join(f"{name} {count}" for name, count in sorted(met.items()))
    sys.stdout.write(f"{cases} cases, {failed} failed: {told}\n")
    return int(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20)
    sys.exit(run(parser.parse_args().cases))
