"""Run every command of the documentation as it is written, each page in a fresh clone.

    python tests/documented.py                             all pages; takes most of an hour
    python tests/documented.py --page docs/generate.md     one page; may be repeated
    python tests/documented.py --keep FOLDER               leave what was made, and logs, in FOLDER

Commands are the lines of blocks marked `sh`, blocks marked `python`, and command lines in the text.
A page has a clone of what is committed and, unless it makes one, the environment that the page on
installation starts with. What pages take for granted, such as a film, is made. Prints a table of
what ran, what did not and why, and fails if a command did. Needs git, bash and a package index.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toy_inputs import provide

ROOT = Path(__file__).parent.parent
INSTALLATION = "docs/installation.md"
NOT_RUN = {
    r"^docker ": "needs docker",
    r"hf://": "needs a hub",
    r"--ray HOST": "needs several machines",
    r"\[cuda\]": "brings gigabytes of CUDA",
    r"tensorrt|gpu-check|\.plan\b": "needs a GPU",
    r"train_sky": "takes hours",
    r"--config sky-128": "takes hours",
    r"^make fuzz": "takes half an hour",
    r"i3d": "needs the network of FVD",
    r"sky-tiny-continue": "takes an hour and more",
    r"--config sky-tiny-distill": "takes an hour",
    r"runs/sky-tiny/distill": "needs a student",
    r"bench --paper-size": "takes 16 GiB and many minutes",
    r"^make documented": "is what runs here",
    r"lvdm-rt serve(?!.*&)": "serves until it is stopped",
}
TOO_LONG = -1  # in place of an exit code
PROGRAMS = "lvdm-rt|lvdm-export|lvdm-tools"
# blocks with their language, and command lines in the text
WRITTEN = re.compile(
    rf"^```(?P<language>\w*)\n(?P<block>.*?)^```|`(?P<inline>(?:{PROGRAMS}|python -m)\s[^`]+)`",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Command:
    """A command as a page has it: a line for bash or a program for Python, or a mention of one."""

    text: str
    language: str
    inline: bool = False

    @property
    def title(self) -> str:
        """Return one line for the table."""
        lines = self.text.strip().splitlines()
        return lines[0] if len(lines) == 1 else f"{lines[0]} … ({len(lines)} lines)"

    @property
    def script(self) -> str:
        """Return what bash is given."""
        if self.language == "sh":
            return self.text
        return f"python - clip.mp4 program.mp4 <<'PROGRAM'\n{self.text}PROGRAM"

    @property
    def reason(self) -> str | None:
        """Return why it cannot run here, if it cannot."""
        found = (why for pattern, why in NOT_RUN.items() if re.search(pattern, self.text))
        return next(found, None)


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    page: str
    command: Command
    summary: str
    failed: bool = False

    def row(self) -> str:
        """Return a row of the table."""
        return f"| {self.page} | `{self.command.title}` | {self.summary} |"


def pages(root: Path) -> list[Path]:
    """Return the pages of the documentation, in the order of reading."""
    found = [root / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    found += sorted((root / "docs").rglob("*.md"))
    return found + sorted((root / "engines/lvdm_engines/bundles").glob("*/README.md"))


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page in their order, mentions of commands included."""
    for found in WRITTEN.finditer(page.read_text("utf-8")):
        if found["inline"]:
            yield Command(" ".join(found["inline"].split()), "sh", inline=True)
        elif found["language"] == "sh":
            lines = found["block"].replace("\\\n", "").splitlines()
            yield from (Command(line, "sh") for line in lines if line.strip())
        elif found["language"] == "python":
            yield Command(found["block"], "python")


def to_run(page: Path) -> list[Command]:
    """Return what is run for a page: in the text, what has an option is a command line."""
    return [c for c in commands(page) if not c.inline or " -" in c.text]


def setup(page: Path, installation: Path) -> list[Command]:
    """Return the commands that come before those of a page, which may install by itself."""
    text = page.read_text("utf-8")
    own = "-m venv" in text or "make install" in text
    return [] if own else to_run(installation)[:2]


class Shell:
    """Commands one after another, as in one terminal: its folder and its variables are kept."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.minutes = folder, minutes
        self.state, self.log = folder / ".state", folder / "log.txt"
        self.state.write_text(f"cd {folder}\n")
        kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        # an index that cannot be reached costs no minutes
        self.environment = kept | {"COLUMNS": "120", "PIP_RETRIES": "0"}

    def where(self) -> Path:
        """Return the folder that commands run in."""
        return Path(self.state.read_text().splitlines()[-1].removeprefix("cd "))

    def run(self, command: Command) -> tuple[int, str]:
        """Run a command and return its exit code, or TOO_LONG, and its output."""
        keep = f'code=$?\n{{ export -p; echo "cd $PWD"; }} > {self.state}\nexit $code'
        script = f". {self.state}\n{command.script}\n{keep}"
        with subprocess.Popen(
            ["bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=60 * self.minutes)
                code = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, code = process.communicate()[0], TOO_LONG
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        with self.log.open("a") as log:
            log.write(f"$ {command.text}\n{output}\n")
        return code, output


def run_one(page: str, command: Command, shell: Shell) -> Outcome:
    """Run a command, if it can run here, and return what became of it."""
    if command.reason is not None:
        return Outcome(page, command, f"not run: {command.reason}")
    provide(command.script, shell.where())
    started = time.monotonic()
    code, output = shell.run(command)
    taken = f"{time.monotonic() - started:.0f} s"
    if code == 0:
        return Outcome(page, command, f"ran, {taken}")
    last = (output.strip().splitlines() or [""])[-1]
    said = "took too long" if code == TOO_LONG else f"exit {code}: {last}"
    return Outcome(page, command, f"FAILED, {taken}: {said}", failed=True)


def clone(source: Path, to: Path) -> None:
    """Clone a repository: what is committed, and nothing else."""
    subprocess.run(["git", "clone", "--quiet", source, to], check=True)


def run_all(folder: Path, wanted: list[str], minutes: float) -> Iterator[Outcome]:
    """Run the pages that are wanted, or all, one after another."""
    clone(ROOT, folder / "pages")
    for page in pages(folder / "pages"):
        name = page.relative_to(folder / "pages").as_posix()
        if to_run(page) and (not wanted or name in wanted):
            scratch = folder / name.removesuffix(".md").replace("/", "-")
            scratch.mkdir()
            shell = Shell(scratch, minutes)
            clone(ROOT, scratch / "lvdm-rt")
            shell.state.write_text(f"cd {scratch / 'lvdm-rt'}\n")
            for command in [*setup(page, folder / "pages" / INSTALLATION), *to_run(page)]:
                yield run_one(name, command, shell)


def main() -> None:
    """Run what is asked for, print the table, and fail if a command did."""
    parser = argparse.ArgumentParser(description="Run every command of the documentation.")
    parser.add_argument(
        "--page", action="append", default=[], help="only this one, such as docs/batch.md"
    )
    parser.add_argument("--keep", type=Path, help="a folder, new, for all that is made")
    parser.add_argument("--minutes", type=float, default=8, help="the time of one command at most")
    asked = parser.parse_args()
    known = {page.relative_to(ROOT).as_posix() for page in pages(ROOT)}
    if unknown := sorted(set(asked.page) - known):
        parser.error(f"no page {unknown[0]}; there are {', '.join(sorted(known))}")
    with tempfile.TemporaryDirectory() as name:
        folder = (asked.keep or Path(name)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = []
        print("| page | command | outcome |\n|---|---|---|")  # noqa: T201 - a script
        for outcome in run_all(folder, asked.page, asked.minutes):
            print(outcome.row(), flush=True)  # noqa: T201
            outcomes.append(outcome)
    failed = sum(outcome.failed for outcome in outcomes)
    ran = sum(outcome.summary.startswith("ran") for outcome in outcomes)
    print(f"{len(outcomes)} commands: {ran} ran, {failed} failed, the others were not run")  # noqa: T201
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
