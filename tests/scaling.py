"""Many workers measured on one machine: are the bytes the same, and what does each worker add?

    python tests/scaling.py                       every part, as docs/scaling.md quotes it
    python tests/scaling.py losses --moments 3    one part

Workers are actors of Ray on nodes that are processes of this machine. Networks do not compute but
rest for a fixed time, in the proportions of a real model, so that two cores can play 64 machines:
what is measured is what it costs to share work, not how fast a machine is. Fails where bytes
differ. Uses no network but the loopback.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from toy_arrays import videos_of
from toy_cluster import ToyOpening, await_workers, crew_on, nodes, toy_pipeline
from toy_pieces import echo, hold_nothing, rest

from lvdm_rt import GenerateOptions

LONG = GenerateOptions(
    frames=1040, sampler="dpmpp_2m", steps=10, refine=2, guidance=0.2, exact=True, batch_size=1
)


class ScalingError(Exception):
    """Something that did not hold."""


def expect(holds: object, what: str) -> None:
    """Fail unless something holds."""
    if not holds:
        raise ScalingError(what)


def alone(options: GenerateOptions, unit: float = 0.0) -> tuple[np.ndarray, float]:
    """Return the frames that a single process makes, and how long it takes."""
    with ToyOpening(unit)().pipeline as pipeline:
        started = time.monotonic()
        frames = videos_of(pipeline, options)[0]
        return frames, time.monotonic() - started


def workers(asked: argparse.Namespace) -> Iterator[str]:
    """The same video by one process, and by 1, 2 and 4 nodes."""
    options = replace(LONG, frames=asked.frames)
    whole, seconds = alone(options, asked.unit)
    yield "| workers | seconds | bytes |\n|---|---|---|"
    yield f"| none: one process | {seconds:.1f} | |"
    with nodes(0) as found:
        for count in (1, 2, 4):
            while len(found.nodes) < count:
                found.add()
            with crew_on(found, count, ToyOpening(asked.unit)) as crew, toy_pipeline(crew) as made:
                started = time.monotonic()
                frames = videos_of(made, options)[0]
                seconds = time.monotonic() - started
            expect(np.array_equal(frames, whole), f"{count} workers made another video")
            yield f"| {count} | {seconds:.1f} | equal |"


def losses(asked: argparse.Namespace) -> Iterator[str]:
    """A node is lost at different moments of a run; every other time another one comes."""
    options = replace(LONG, frames=asked.frames)
    whole, _ = alone(options)
    yield "| node lost after | another one comes | seconds | workers in the end | bytes |"
    yield "|---|---|---|---|---|"
    with (
        ThreadPoolExecutor(1) as thread,
        nodes(2) as found,
        crew_on(found, 2, ToyOpening(asked.unit)) as crew,
        toy_pipeline(crew) as made,
    ):
        started = time.monotonic()
        expect(np.array_equal(videos_of(made, options)[0], whole), "2 workers made another video")
        usual = time.monotonic() - started
        yield f"| never | | {usual:.1f} | 2 | equal |"
        for number in range(asked.moments):
            moment, again = usual * (number + 0.5) / asked.moments, number % 2 == 1
            started = time.monotonic()
            run = thread.submit(videos_of, made, options)
            time.sleep(moment)
            found.lose()
            if again:
                found.add()
            frames = run.result()[0]
            seconds, left = time.monotonic() - started, crew.ready
            expect(np.array_equal(frames, whole), f"lost after {moment:.1f} s: another video")
            word = "yes" if again else "no"
            yield f"| {moment:.1f} s | {word} | {seconds:.1f} | {left} | equal |"
            if not again:
                found.add()
            await_workers(crew, 2)


def units(asked: argparse.Namespace) -> Iterator[str]:
    """Independent pieces of a fixed time, by more and more workers."""
    yield f"pieces of {asked.seconds:g} s, {asked.rounds} for each worker\n"
    yield "| workers | seconds | ideal | efficiency | of a worker more |\n|---|---|---|---|---|"
    before: tuple[int, float] | None = None
    with nodes(1, cpus=max(asked.counts)) as found:
        for count in asked.counts:
            with crew_on(found, count, hold_nothing) as crew:
                _drain(crew.map(rest, [0.0] * 3 * count))
                started = time.monotonic()
                used = _drain(crew.map(rest, [asked.seconds] * count * asked.rounds))
                seconds = time.monotonic() - started
            expect(len(used) == count, f"{len(used)} of {count} workers did something")
            ideal = asked.seconds * asked.rounds
            rate = count * ideal / seconds  # workers' worth
            added = (rate - before[1]) / (count - before[0]) if before else rate
            yield f"| {count} | {seconds:.2f} | {ideal:.2f} | {ideal / seconds:.3f} | {added:.3f} |"
            before = count, rate


def _drain(outcomes: Iterable[object]) -> set[object]:
    """Return which workers did something."""
    used = set()
    for outcome in outcomes:
        expect(outcome.error is None, str(outcome.error))  # type: ignore[attr-defined]
        used.add(outcome.result)  # type: ignore[attr-defined]
    return used


def video(asked: argparse.Namespace) -> Iterator[str]:
    """One long video by more and more workers: how long it takes, and when first frames come."""
    options = replace(LONG, frames=asked.frames)
    whole, _ = alone(options)
    yield "| workers | seconds | times as fast | first frames after |\n|---|---|---|---|"
    one = 0.0
    counts = [count for count in (1, 2, 4, 8, 16) if count <= max(asked.counts)]
    with nodes(1, cpus=max(counts)) as found:
        for count in counts:
            with crew_on(found, count, ToyOpening(asked.unit)) as crew, toy_pipeline(crew) as made:
                started, first, parts = time.monotonic(), 0.0, []
                for frames in made.stream(options):
                    first = first or time.monotonic() - started
                    parts.append(frames)
                seconds = time.monotonic() - started
            expect(np.array_equal(np.concatenate(parts), whole), f"{count} made another video")
            one = one or seconds
            yield f"| {count} | {seconds:.1f} | {one / seconds:.2f} | {first:.2f} s |"


def driver(asked: argparse.Namespace) -> Iterator[str]:
    """What the one process that hands out work can do in a second."""
    yield "| what | in a second |\n|---|---|"
    count = 4
    with nodes(1, cpus=count) as found, crew_on(found, count, hold_nothing) as crew:
        _drain(crew.map(rest, [0.0] * 200))
        for what, size, pieces in (
            ("pieces of no work and no data", 0, 3000),
            ("clips of 64 KB, there and back", 64 << 10, 1000),
            ("clips of 1 MiB, there and back", 1 << 20, 300),
            ("decode windows of 12 MiB, there and back", 12 << 20, 60),
        ):
            data = np.zeros(size, np.uint8)
            started, cpu = time.monotonic(), time.process_time()
            for outcome in crew.map(echo, (data for _ in range(pieces))):
                expect(outcome.error is None, str(outcome.error))
            seconds, cpu = time.monotonic() - started, time.process_time() - cpu
            moved = f", {2 * size * pieces / seconds / 1e6:.0f} MB" if size else ""
            yield (
                f"| {what} | {pieces / seconds:.0f}{moved}; the driver computes "
                f"{cpu / pieces * 1e3:.2f} ms for each |"
            )


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "workers": workers, "losses": losses, "units": units, "video": video, "driver": driver,
}  # fmt: skip


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked; return 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--frames", type=int, default=1040, help="of the long video")
    parser.add_argument(
        "--unit", type=float, default=0.004, help="seconds of a latent in a network"
    )
    parser.add_argument("--moments", type=int, default=10, help="at which a node is lost")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a piece of units")
    parser.add_argument("--rounds", type=int, default=8, help="pieces of units for each worker")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    asked = parser.parse_args(arguments)
    try:
        for name in asked.parts or PARTS:
            part = PARTS[name]
            say(f"\n### {name}: {(part.__doc__ or '').strip()}\n")
            for line in part(asked):
                say(line)
    except ScalingError as err:
        say(f"scaling: {err}")
        return 1
    return 0


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    sys.exit(main(sys.argv[1:]))
