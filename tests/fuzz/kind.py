"""What a kind of case is: whole files to begin with, one of them changed by a seed, and a run."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Rng = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """`prepare` writes whole files into an empty folder, in a process of its own.

    `make` gets a copy of them, changes something, and tells what; `run` returns an exit code; with
    nothing changed that is 0. It has `errors` of one line each at most. `daily` cases of it run in
    `make test`.
    """

    name: str
    prepare: Callable[[Path], None]
    make: Callable[[Path, Rng], str]
    run: Callable[[Path], int]
    daily: int = 6
    errors: int = 1


def command(words: Sequence[object], script: str = "lvdm_rt") -> int:
    """Run a command of ours in this process, as its console script does; returns its exit code."""
    from importlib import import_module

    sys.argv = [script.replace("_", "-"), *map(str, words)]
    code: int = import_module(f"{script}.cli").run(sys.argv[1:])
    return code


def commands(script: str, *lines: Sequence[object]) -> int:
    """Run commands of one script until one fails; returns its exit code."""
    return next((code for words in lines if (code := command(words, script))), 0)


def outputs(folder: Path, before: set[str], expected: dict[str, bool]) -> None:
    """Make sure that nothing but whole outputs is new in a folder."""
    new = {path.name for path in folder.iterdir()} - before
    wanted = {name for name, there in expected.items() if there}
    if new != wanted:
        raise AssertionError(f"left {sorted(new)}, expected {sorted(wanted)}")
