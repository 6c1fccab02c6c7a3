"""Kills by the hundred, on toy models: what was tried, how often, and what did not hold.

    python tests/faults.py                          every kind, 100 cases of each
    python tests/faults.py --kind kill --cases 300  one kind; may be repeated

Half of the moments are random, the others lie where a finished thing gets its name. A case fails if
a file is lost, half-written or other than it should be, if anything is left behind, or if an error
is not one line with exit code 1. Prints a table; fails if a case did. Damaged files: tests/fuzz.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import toy_disk
import toy_frames
import toy_inputs
import yaml
from toy_files import GENERATE, content, with_tests_on_path
from toy_runs import AUTOENCODER

from lvdm_engines.bundle import load_bundle

OUTS = ("sky.npz", "sky.gif", "sky.webm", "sky.mp4", "sky")
FLAGS = ("--frames", "400", "--seed", "3", "--exact", "-q")
BUILD = (
    "build-engines", "--predict", "model.yaml", "model.ckpt", "--interpolate", "model.yaml",
    "model.ckpt", "--out", "bundle", "--force", "-q",
)  # fmt: skip
_SECONDS = 300.0  # that no run of a toy model takes


class FaultError(Exception):
    """A case that did not hold."""


def expect(holds: object, what: str) -> None:
    """Fail the case unless something holds."""
    if not holds:
        raise FaultError(what)


@dataclass(frozen=True)
class Start:
    """What all cases start from: a bundle, and the files of undisturbed runs by their output."""

    folder: Path
    toy: Path
    whole: dict[str, dict[str, bytes]]
    seconds: float  # that the longest of them takes


@dataclass(frozen=True)
class Place:
    """Where a case works: an empty folder, what it starts from, and its random numbers."""

    folder: Path
    begin: Start
    chance: random.Random

    def moment(self, first: float = 0.0, last: float = 1.0) -> None:
        """Wait for a random part of the time that a run takes."""
        time.sleep(self.begin.seconds * self.chance.uniform(first, last))

    def any_moment(self, run: "subprocess.Popen[str]", seconds: float, last: str) -> None:
        """Wait for a random moment of a run, or until a file is there that is written last."""
        if self.chance.random() < 0.5:
            time.sleep(seconds * self.chance.random())
            return
        while run.poll() is None and not any(self.folder.glob(last)):
            time.sleep(0.0005)
        time.sleep(self.chance.uniform(0, 0.02))


def start(folder: Path, toy: Path, *flags: str) -> "subprocess.Popen[str]":
    """Start `lvdm-rt generate` as a process of its own."""
    command = [sys.executable, "-c", GENERATE, "generate", "--bundle", str(toy), *flags]
    return subprocess.Popen(command, cwd=folder, text=True, stderr=subprocess.PIPE)


def finish(place: Place, folder: Path, out: str) -> None:
    """Go on with an interrupted run to its end: the same files, and nothing else."""
    run = start(folder, place.begin.toy, "-o", out, *FLAGS, "--resume")
    _, said = run.communicate(timeout=_SECONDS)
    expect(run.returncode == 0, f"--resume: exit {run.returncode}, said {said!r}")
    left, whole = content(folder), place.begin.whole[out]
    expect(left.keys() == whole.keys(), f"left {sorted(left)}")
    expect(left == whole, f"{out} is another video")


def kill(place: Place) -> None:
    """SIGKILL at one to three random moments, then --resume."""
    out = place.chance.choice(OUTS)
    for _ in range(place.chance.randint(1, 3)):
        run = start(place.folder, place.begin.toy, "-o", out, *FLAGS, "--resume")
        place.any_moment(run, place.begin.seconds, ".sky*.json.*.partial")
        run.kill()
        run.communicate()
        for path in place.folder.glob("sky*"):
            expect(path.is_dir() or path.stat().st_size, f"{path.name} is empty")
    finish(place, place.folder, out)


def interrupt(place: Place) -> None:
    """SIGINT or SIGTERM, one to four times at random moments, then --resume."""
    out = place.chance.choice(OUTS)
    run = start(place.folder, place.begin.toy, "-o", out, *FLAGS, "--resume")
    _wait_for_signals(run)
    place.any_moment(run, place.begin.seconds, ".sky*.json.*.partial")
    for _ in range(place.chance.randint(1, 4)):
        run.send_signal(place.chance.choice([signal.SIGINT, signal.SIGTERM]))
        time.sleep(place.chance.uniform(0, 0.05))
    _, said = run.communicate(timeout=_SECONDS)
    expect(run.returncode in (0, 130), f"exit {run.returncode}, said {said!r}")
    expect(said.count("\n") == (run.returncode != 0), f"said {said!r}")
    finish(place, place.folder, out)


def _wait_for_signals(run: "subprocess.Popen[str]") -> None:
    while run.poll() is None and not _catches(run.pid, signal.SIGTERM):  # what starts is Python
        time.sleep(0.001)


def _catches(process: int, number: int) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def power(place: Place) -> None:
    """Loss of power at a random moment of a run, or just after it, then --resume."""
    out = place.chance.choice(OUTS)
    with toy_disk.new_disk(place.folder) as disk:
        run = start(disk, place.begin.toy, "-o", out, *FLAGS)
        if place.chance.random() < 0.5:
            place.moment(0.3)
        else:
            run.wait(timeout=_SECONDS)
        done = run.poll() == 0
        written = content(disk)
        with toy_disk.after_power_loss(disk, run) as after:
            (after / "lost+found").rmdir()
            expect(not done or content(after) == written, "what was written is lost")
            finish(place, after, out)


def _ended(place: Place, words: tuple[str, ...], seconds: float, last: str) -> None:
    """Start a command, and end it by one of three signals at a random moment."""
    number = place.chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    run = _run(place.folder, *words)
    if number != signal.SIGKILL:
        _wait_for_signals(run)
    place.any_moment(run, seconds, last)
    run.send_signal(number)
    _, said = run.communicate(timeout=_SECONDS)
    if number != signal.SIGKILL:
        expect(run.returncode in (0, 130), f"exit {run.returncode}, said {said!r}")
        lines = [line for line in said.splitlines() if "interrupted" in line]
        expect(len(lines) == (run.returncode == 130), f"said {said!r}")


def build(place: Place) -> None:
    """SIGKILL, SIGTERM or SIGINT while a bundle replaces another: one of them is whole."""
    old = toy_frames.write_bundle(place.folder / "bundle")
    before = content(old)
    _ended(place, BUILD, 30.0, ".bundle.*.partial/manifest.json")
    after = load_bundle(old)
    for name in after.manifest.graphs:
        after.graph(name).verified()
    replaced = after.manifest.name != "toy"
    expect(replaced or content(old) == before, "a bundle is half replaced")
    if place.chance.random() < 0.2:
        run = _run(place.folder, *BUILD)
        _, said = run.communicate(timeout=_SECONDS)
        expect(run.returncode == 0, f"building again: {said}")
        left = {path.name for path in place.folder.iterdir()}
        expect(left == {"bundle", "model.yaml", "model.ckpt"}, f"left {left}")


def train(place: Place) -> None:
    """SIGKILL, SIGTERM or SIGINT in a training, once or twice, then --resume: the same weights."""
    file = place.folder / "c.yaml"
    file.write_text(yaml.safe_dump(AUTOENCODER))
    words = ("train", "autoencoder", "--config", "c.yaml", "--data", "synth", "--out", "run", "-q")
    whole = place.begin.folder / "trained"
    if not whole.exists():
        run = _run(place.folder, *words)
        run.communicate(timeout=_SECONDS)
        expect(run.returncode == 0, "an undisturbed training fails")
        (place.folder / "run").rename(whole)
    for _ in range(place.chance.randint(1, 2)):
        again = ("--resume",) if (place.folder / "run" / "config.json").exists() else ()
        _ended(place, (*words, *again), 8.0, "run/.*.partial")
    again = ("--resume",) if (place.folder / "run" / "config.json").exists() else ()
    run = _run(place.folder, *words, *again)
    _, said = run.communicate(timeout=_SECONDS)
    expect(run.returncode == 0, f"--resume: exit {run.returncode}, said {said!r}")
    for name in ("state.safetensors", "model/model.safetensors"):
        made = (place.folder / "run" / name).read_bytes()
        expect(made == (whole / name).read_bytes(), f"{name} is another")
    hidden = [path.name for path in (place.folder / "run").rglob(".*.partial")]
    expect(not hidden, f"left {hidden}")


def _run(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Start one of the other commands as a process of its own."""
    script = "lvdm_export" if words[0] == "build-engines" else "lvdm_tools"
    if words[0] == "build-engines" and not (folder / "model.ckpt").exists():
        toy_inputs.configuration(folder / "model.yaml")
        toy_inputs.checkpoint(folder / "model.ckpt")
    code = f"import sys; from {script}.cli import main; sys.argv[0] = 'lvdm'; main()"
    command = [sys.executable, "-c", code, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, text=True, stderr=pipe, stdout=pipe, env=with_tests_on_path()
    )


KINDS: dict[str, Callable[[Place], None]] = {
    case.__name__: case for case in (kill, interrupt, power, build, train)
}


def prepared(folder: Path) -> Start:
    """Make a bundle, undisturbed runs of it, and the work directory of an interrupted one."""
    toy = toy_frames.write_bundle(folder / "toy")
    whole, seconds = {}, 0.0
    for out in OUTS:
        (folder / "runs" / out).mkdir(parents=True)
        began = time.monotonic()
        run = start(folder / "runs" / out, toy, "-o", out, *FLAGS)
        run.communicate(timeout=_SECONDS)
        expect(run.returncode == 0, "an undisturbed run fails")
        seconds = max(seconds, time.monotonic() - began)
        whole[out] = content(folder / "runs" / out)
    return Start(folder, toy, whole, seconds)


def tried(kind: str, cases: Iterable[int], begin: Start) -> list[str]:
    """Try the cases of these numbers; returns what did not hold."""
    failures = []
    for number in cases:
        with tempfile.TemporaryDirectory(dir=begin.folder) as folder:
            chance = random.Random(f"{kind} {number}")  # noqa: S311 - any moments will do
            try:
                KINDS[kind](Place(Path(folder), begin, chance))
            except toy_disk.NoDiskError:
                raise
            except Exception:  # noqa: BLE001 - a fault of the case itself counts as well
                failures.append(f"{kind} {number}: {traceback.format_exc()}")
    return failures


def main() -> int:
    """Try what the command line asks for, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    asked = parser.parse_args()
    failed = 0
    sys.stdout.write("| fault | cases | failed |\n|---|---|---|\n")
    with tempfile.TemporaryDirectory(prefix="lvdm-faults-") as folder:
        begin = prepared(Path(folder))
        for kind in asked.kind or KINDS:
            numbers = range(asked.first, asked.first + asked.cases)
            failures = tried(kind, numbers, begin)
            failed += len(failures)
            what = str(KINDS[kind].__doc__).rstrip(".")
            sys.stdout.write(f"| {what} | {asked.cases} | {len(failures)} |\n")
            sys.stdout.flush()
            sys.stderr.write("".join(f"{line}\n" for line in failures))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
