"""Cases by the hundred: what is read is changed at random, and ends in a result or one line.

    python tests/fuzz/fuzzing.py --minutes 30            all kinds in turn
    python tests/fuzz/fuzzing.py --minutes 30 --first N  goes on where a run has said that it ended
    python tests/fuzz/fuzzing.py --kind film --first 8211 --cases 1   one case again

Prints each finding with the command that repeats it, and the cases of each kind.
"""

import argparse
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
from fuzz import child
from fuzz.kind import Kind
from fuzz.kinds import bundles, films, lists, models, plans, runs, texts

KINDS = {
    kind.name: kind
    for kind in (
        *bundles.KINDS,
        *plans.KINDS,
        *models.KINDS,
        *films.KINDS,
        *runs.KINDS,
        *lists.KINDS,
        *texts.KINDS,
    )
}


def prepared(kind: Kind, folder: Path) -> Path:
    """Write what the cases of a kind begin with, and make sure that it is accepted."""
    whole = folder / kind.name.replace(" ", "-")
    whole.mkdir()
    made = child.run(lambda: kind.prepare(whole) or 0, whole)
    if made.code == 0:
        tried_whole = Path(shutil.copytree(whole, folder / "undamaged", symlinks=True))
        made = child.run(lambda: kind.run(tried_whole), tried_whole)
        shutil.rmtree(tried_whole)
    if made.code:
        raise RuntimeError(f"{kind.name} cannot be prepared: {made.err}")
    return whole


def tried(kind: Kind, seed: int, whole: Path, scratch: Path) -> list[str]:
    """Try one case; returns its findings, with what was changed and what was said."""
    folder = scratch / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder, symlinks=True)
    way = scratch / "way"

    def case() -> int:
        rng = np.random.default_rng([seed, *kind.name.encode()])
        way.write_text(kind.make(folder, rng))
        return kind.run(folder)

    way.write_text("")
    outcome = child.run(case, folder)
    found = outcome.findings(kind.errors)
    changed, said = way.read_text(), outcome.err.strip()[-600:]
    return [f"{', '.join(found)} ({changed}): {said}"] if found else []


def rounds(kinds: list[Kind], asked: argparse.Namespace) -> Iterator[tuple[Kind, int]]:
    """Yield kinds in turn, with the seeds that are asked for."""
    for seed in itertools.count(asked.first):
        due = [kind for kind in kinds if not asked.daily or seed < kind.daily]
        if not due or (asked.cases is not None and seed >= asked.first + asked.cases):
            return
        yield from ((kind, seed) for kind in due)


def main() -> int:
    """Try what the command line asks for; fails if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--cases", type=int, help="of each kind; else as many as the time allows")
    parser.add_argument("--daily", action="store_true", help="as many as `make test` tries")
    parser.add_argument("--first", type=int, default=0, help="the first case's number")
    asked = parser.parse_args()
    kinds = [KINDS[name] for name in asked.kind or KINDS]
    counts, findings = dict.fromkeys(asked.kind or KINDS, 0), dict.fromkeys(asked.kind or KINDS, 0)
    ends, seed = time.monotonic() + 60 * asked.minutes, asked.first
    with tempfile.TemporaryDirectory(prefix="lvdm-fuzz-") as place:
        os.environ |= {"XDG_CACHE_HOME": f"{place}/cache", "XDG_STATE_HOME": f"{place}/state"}
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        whole = {kind.name: prepared(kind, Path(place)) for kind in kinds}
        for kind, seed in rounds(kinds, asked):
            for found in tried(kind, seed, whole[kind.name], Path(place)):
                findings[kind.name] += 1
                again = f"--kind '{kind.name}' --first {seed} --cases 1"
                sys.stdout.write(f"FOUND {again}: {found}\n")
                sys.stdout.flush()
            counts[kind.name] += 1
            if kind is kinds[-1] and time.monotonic() > ends:
                break
    sys.stdout.write("| damaged | cases | findings |\n|---|---|---|\n")
    for name, count in counts.items():
        sys.stdout.write(f"| {name} | {count} | {findings[name]} |\n")
    sys.stdout.write(f"next: --first {seed + 1}\n")
    return any(findings.values())


if __name__ == "__main__":
    sys.exit(main())
