"""Faults by the hundred, on a toy model: what was tried, how often, and what did not hold.

    python tests/faults.py                          every kind, 100 cases of each
    python tests/faults.py --kind kill --cases 300  one kind; may be repeated

A case fails if a file is lost, half-written or other than it should be, if anything is left behind,
or if an error is not one line with exit code 1. Prints a table; fails if a case did.
"""

import argparse
import io
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import toy_disk
import toy_frames
from toy_damage import copied, damage
from toy_files import GENERATE, content

from lvdm_rt import GenerateOptions, Pipeline, cli

OUTS = ("sky.npz", "sky.gif", "sky.webm", "sky.mp4", "sky")
FLAGS = ("--frames", "400", "--seed", "3", "--exact", "-q")
SMALL = ("--frames", "24", "--seed", "3", "--exact", "-q")
_SECONDS = 120.0  # that a run of the toy model never takes


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


def start(folder: Path, toy: Path, *flags: str) -> "subprocess.Popen[str]":
    """Start `lvdm-rt generate` as a process of its own."""
    command = [sys.executable, "-c", GENERATE, "generate", "--bundle", str(toy), *flags]
    return subprocess.Popen(command, cwd=folder, text=True, stderr=subprocess.PIPE)


def call(folder: Path, *words: str) -> tuple[int, str]:
    """Run `lvdm-rt` in this process; returns its exit code and the line that it said, if any."""
    said = io.StringIO()
    sys.argv = ["lvdm-rt", *words]
    with chdir(folder), redirect_stderr(said), redirect_stdout(io.StringIO()):
        try:
            code = cli.run(words)
        except BaseException as err:
            raise FaultError(f"{type(err).__name__}: {err}") from err
    text = "".join(line for line in said.getvalue().splitlines(True) if "made again" not in line)
    expect(text.count("\n") <= 1 or code == 2, f"said {text!r}")
    expect(code in (0, 1, 2) and (code == 0 or text), f"exit {code}, said {text!r}")
    return code, text


def finish(place: Place, folder: Path, out: str) -> None:
    """Go on with an interrupted run to its end: the same files, and nothing else."""
    run = start(folder, place.begin.toy, "-o", out, *FLAGS, "--resume")
    _, said = run.communicate(timeout=_SECONDS)
    expect(run.returncode == 0, f"--resume: exit {run.returncode}, said {said!r}")
    left, whole = content(folder), place.begin.whole[out]
    expect(left.keys() == whole.keys(), f"left {sorted(left)}")
    # x264 may give another file for the same frames, see the encoders' settings
    same = left == whole or (out.endswith("mp4") and _sizes(left) == _sizes(whole))
    expect(same, f"{out} is another video")


def _sizes(files: dict[str, bytes]) -> list[int]:
    return [len(data) // 4096 for data in files.values()]


def kill(place: Place) -> None:
    """SIGKILL at one to three random moments, then --resume."""
    out = place.chance.choice(OUTS)
    for _ in range(place.chance.randint(1, 3)):
        run = start(place.folder, place.begin.toy, "-o", out, *FLAGS, "--resume")
        place.moment()
        run.kill()
        run.communicate()
        for path in place.folder.glob("sky*"):
            expect(path.is_dir() or path.stat().st_size, f"{path.name} is empty")
    finish(place, place.folder, out)


def interrupt(place: Place) -> None:
    """SIGINT or SIGTERM, one to four times at random moments, then --resume."""
    out = place.chance.choice(OUTS)
    run = start(place.folder, place.begin.toy, "-o", out, *FLAGS, "--resume")
    while not _catches(run.pid, signal.SIGTERM):  # what starts is Python itself
        time.sleep(0.001)
    place.moment()
    for _ in range(place.chance.randint(1, 4)):
        run.send_signal(place.chance.choice([signal.SIGINT, signal.SIGTERM]))
        time.sleep(place.chance.uniform(0, 0.05))
    _, said = run.communicate(timeout=_SECONDS)
    expect(run.returncode in (0, 130), f"exit {run.returncode}, said {said!r}")
    expect(said.count("\n") == (run.returncode != 0), f"said {said!r}")
    finish(place, place.folder, out)


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


def work(place: Place) -> None:
    """One file of an interrupted run's work directory damaged, then --resume."""
    interrupted = place.folder / ".sky.npz.work"
    copied(place.begin.folder / "interrupted", interrupted)
    files = [path for path in sorted(interrupted.rglob("*")) if path.is_file()]
    way = damage(place.chance.choice(files), _numbers(place))
    code, said = call(place.folder, *_command(place), "-o", "sky.npz", *SMALL, "--resume")
    if code == 0:
        expect(
            content(place.folder).items() >= place.begin.whole["small"].items(),
            f"{way}: other frames",
        )
    else:
        expect("work" in said, f"{way}: {said}")


def bundle(place: Place) -> None:
    """One file of a bundle damaged, then used."""
    toy = copied(place.begin.toy, place.folder / "toy")
    way = damage(place.chance.choice(sorted(toy.iterdir())), _numbers(place))
    flags = ("--bundle", "./toy", "-o", "sky.npz", *SMALL)
    code, said = call(place.folder, "generate", *flags)
    made = (place.folder / "sky.npz").exists()
    expect(made == (code == 0), f"{way}: exit {code}, said {said}")
    call(place.folder, "info", "./toy")


def condition(place: Place) -> None:
    """A film, a GIF, an archive or a folder of pictures damaged, then continued."""
    name = place.chance.choice(OUTS)
    for relative, data in place.begin.whole[name].items():
        path = place.folder / "in" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    film = place.folder / "in" / name
    damaged = place.chance.choice(sorted(film.iterdir())) if film.is_dir() else film
    way = damage(damaged, _numbers(place))
    flags = ("--condition", str(film), "-o", "new.npz", *SMALL)
    code, said = call(place.folder, *_command(place), *flags)
    expect((place.folder / "new.npz").exists() == (code == 0), f"{way}: exit {code}, said {said}")


def sidecar(place: Place) -> None:
    """A video or its sidecar damaged, then resumed and repeated: made again, or refused."""
    for relative, data in place.begin.whole["small"].items():
        (place.folder / relative).write_bytes(data)
    damaged = place.chance.choice(["sky.npz", "sky.npz.json"])
    way = damage(place.folder / damaged, _numbers(place))
    repeat = ("--from", "sky.npz.json", "-o", "again.npz", "--bundle", str(place.begin.toy))
    call(place.folder, "generate", *repeat, "--frames", "24", "-q")  # a sidecar may ask for a year
    again = place.folder / "again.npz"
    flags = ("-o", "sky.npz", *SMALL, "--resume", "--force")
    code, _ = call(place.folder, *_command(place), *flags)
    if code == 0 and (place.folder / "sky.npz").is_file():  # a directory stands for pictures
        frames = (place.folder / "sky.npz").read_bytes()
        expect(frames == place.begin.whole["small"]["sky.npz"], f"{way}: other frames")
        expect(damaged != "sky.npz" or again.read_bytes(), f"{way}: not repeated")


KINDS: dict[str, Callable[[Place], None]] = {
    case.__name__: case for case in (kill, interrupt, power, work, bundle, condition, sidecar)
}


def _numbers(place: Place) -> np.random.Generator:
    return np.random.default_rng(place.chance.randrange(1 << 32))


def _command(place: Place) -> tuple[str, ...]:
    return ("generate", "--bundle", str(place.begin.toy))


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
    (folder / "small").mkdir()
    call(folder / "small", "generate", "--bundle", str(toy), "-o", "sky.npz", *SMALL)
    whole["small"] = content(folder / "small")
    options = GenerateOptions(frames=24, seed=3, exact=True)
    with Pipeline.open(toy) as pipeline:
        for _ in pipeline.stream(options, work=folder / "interrupted"):
            pass
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
