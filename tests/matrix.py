"""Run the lean tests on every Python that is here, with the oldest and newest allowed packages.

    python tests/matrix.py            all tests of the runtime and the engines
    python tests/matrix.py --quick    those of them that are not slow, as CI runs them

Each environment is fresh and holds the wheel, the extra `cpu` and the group `lean`. Needs uv
and a package index. Prints a table; a Python that is missing is said and is no failure.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
SHOWN = ("numpy", "onnxruntime", "av", "click", "msgspec", "tqdm", "pytest")
# the server's tests need clients, which the environments have not
TESTS = ("tests/runtime", "tests/engines", "--ignore", "tests/runtime/serve")


@dataclass(frozen=True)
class Cell:
    """One environment: a Python and the end of the allowed versions."""

    python: Path
    version: str
    resolution: str


@dataclass(frozen=True)
class Outcome:
    """What an environment held and what its tests said."""

    cell: Cell
    packages: dict[str, str]
    summary: str
    output: str
    passed: bool

    def row(self) -> str:
        """Return a row of the table."""
        shown = (self.packages.get(name, "–") for name in SHOWN)
        cells = (self.cell.version, self.cell.resolution, *shown, self.summary)
        return f"| {' | '.join(cells)} |"


def candidates(version: str) -> Iterator[Path]:
    """Yield where a Python may lie: pyenv's own folders before the PATH, which may hold shims."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from sorted(pyenv.glob(f"{version}.*/bin/python{version}"))
    found = shutil.which(f"python{version}")
    if found:
        yield Path(found)


def find_python(version: str) -> Cell | None:
    """Return the first Python of a minor version that starts."""
    for path in candidates(version):
        done = subprocess.run(
            [path, "-c", "import platform; print(platform.python_version())"],
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return Cell(path, done.stdout.strip(), "")
    return None


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command quietly from the root of the project; paths of another tree do not leak in."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environment |= {"OMP_NUM_THREADS": "1"}
    words = [str(part) for part in command]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)


def install(cell: Cell, wheel: Path, environment: Path) -> subprocess.CompletedProcess[str]:
    """Make a fresh environment with the wheel and what the lean tests need."""
    made = run("uv", "venv", "--quiet", "--no-managed-python", "--python", cell.python, environment)
    if made.returncode != 0:
        return made
    add = ("uv", "pip", "install", "--quiet", "--only-binary", ":all:", "--python", environment)
    # uv takes the lowest of what it is given itself, not of what a wheel asks for.
    needs = ("--requirements", "pyproject.toml", "--extra", "cpu", "--group", "pyproject.toml:lean")
    filled = run(*add, "--resolution", RESOLUTIONS[cell.resolution], *needs)
    if filled.returncode != 0:
        return filled
    return run(*add, "--no-deps", wheel)


def packages(environment: Path) -> dict[str, str]:
    """Return the version of every package of an environment."""
    listed = run("uv", "pip", "list", "--quiet", "--python", environment, "--format", "json")
    return {row["name"]: row["version"] for row in json.loads(listed.stdout)}


def check(cell: Cell, wheel: Path, folder: Path, chosen: str) -> Outcome:
    """Install and test one environment."""
    environment = folder / f"{cell.version}-{cell.resolution}"
    done = install(cell, wheel, environment)
    if done.returncode != 0:
        return Outcome(cell, {}, "cannot be installed", done.stderr, passed=False)
    options = ("-q", "-p", "no:cacheprovider", "-m", chosen, "--tb=short")
    done = run(environment / "bin" / "python", "-m", "pytest", *options, *TESTS)
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
    summary = re.sub(r"^=+ | =+$", "", last)
    return Outcome(cell, packages(environment), summary, done.stdout, done.returncode == 0)


def table(outcomes: list[Outcome]) -> str:
    """Return all outcomes as a table in Markdown."""
    head = ("Python", "versions", *SHOWN, "tests")
    rows = (f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(o.row() for o in outcomes))
    return "\n".join(rows)


def main() -> None:
    """Find the Pythons, test them two at a time, print the table, and fail if a test did."""
    quick = "--quick" in sys.argv[1:]
    chosen = "not slow and not exhaustive" if quick else "slow or not slow"
    found = {version: find_python(version) for version in PYTHONS}
    cells = [
        Cell(python.python, python.version, resolution)
        for python in found.values()
        if python is not None
        for resolution in RESOLUTIONS
    ]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        built = run("uv", "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
        if built.returncode != 0:
            sys.exit(built.stderr)
        (wheel,) = folder.glob("*.whl")
        outcomes = list(pool.map(lambda cell: check(cell, wheel, folder, chosen), cells))
    for outcome in outcomes:
        if not outcome.passed:
            print(outcome.cell, *outcome.output.splitlines()[-60:], sep="\n")  # noqa: T201 - a script
    print(table(outcomes))  # noqa: T201
    for version in (version for version, python in found.items() if python is None):
        print(f"Python {version} is not here: not tested")  # noqa: T201
    if not all(outcome.passed for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
