"""Lists of jobs, and what a batch of them has left: its record, videos and their sidecars."""

import json
import logging
from pathlib import Path

import toy_frames
from fuzz.kind import Kind, Rng, command
from toy_damage import damage

LINES = (
    {"name": "one", "seed": 1},
    {"name": "two.npz", "seed": 2, "frames": 8},
    {"name": "three", "seed": 3, "steps": 2, "sampler": "ddim", "eta": 0.5},
    {"name": "four", "seed": 4, "condition": "done/one.npz", "join": True, "guidance": 1},
)
FLAGS = ("--bundle", "./toy", "--backend", "cpu", "--frames", "16", "--format", "npz", "-q")


def prepare(folder: Path) -> None:
    """Write the toy bundle, a list, and what the batch of its first half has left."""
    toy_frames.write_bundle(folder / "toy")
    write(folder, LINES[:2])
    batch(folder)
    write(folder, LINES)


def write(folder: Path, lines: tuple[dict[str, object], ...]) -> None:
    """Write a list of jobs."""
    (folder / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def change(folder: Path, rng: Rng) -> str:
    """Change the list, half of the time, or one file of the batch."""
    files = sorted(path for path in (folder / "done").iterdir() if path.is_file())
    path = [*[folder / "jobs.jsonl"] * len(files), *files][int(rng.integers(2 * len(files)))]
    return f"{path.name}: {damage(path, rng)}"


def batch(folder: Path) -> int:
    """Make what is missing; every video that is there has its settings, and nothing is hidden."""
    logging.disable(logging.WARNING)
    before = {path.name for path in folder.iterdir()}
    code = command(["batch", "jobs.jsonl", "-o", "done", *FLAGS])
    if left := {path.name for path in folder.iterdir()} - before - {"done"}:
        raise AssertionError(f"left {sorted(left)}")
    if code == 0:
        names = {path.name for path in (folder / "done").iterdir()}
        odd = {name for name in names if name.startswith(".")}
        odd |= {name for name in names if name.endswith(".npz") and f"{name}.json" not in names}
        if odd:
            raise AssertionError(f"left {sorted(odd)} in the folder of the batch")
    return code


# jobs that fail are told one by one, up to 20, and that there are more
KINDS = (Kind("work list", prepare, change, batch, errors=22),)
