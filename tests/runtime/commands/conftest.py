"""A bundle of graphs that only rearrange and scale, and a way to run the command on it."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# An interrupt may come between the opening of a file and its owner; the process ends then anyway.
_WARNINGS = ("-W", "error", "-W", "ignore::ResourceWarning")


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    toy_frames = pytest.importorskip("toy_frames")  # needs onnx

    def make(weight: float = 0.7) -> Path:
        return toy_frames.write_bundle(tmp_path_factory.mktemp("bundles") / "toy", weight)

    return make


@pytest.fixture(scope="session")
def toy(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle()


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `lvdm-rt` in this process, in a directory of its own: (exit code, stdout, stderr)."""
    from lvdm_rt import cli

    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["lvdm-rt", *words])
        code = cli.run(words)
        return code, *capfd.readouterr()

    return command


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `lvdm-rt` as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        code = "import sys; from lvdm_rt.cli import main; sys.argv[0] = 'lvdm-rt'; main()"
        process = subprocess.Popen(
            [sys.executable, *_WARNINGS, "-c", code, *map(str, arguments)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture(autouse=True)
def _what_loggers_say_is_restored() -> Iterator[None]:
    loggers = [logging.getLogger(n) for n in ("lvdm_engines", "lvdm_engines.opening", "lvdm_rt")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def settings_of() -> Callable[[Path], dict[str, object]]:
    def settings_of(path: Path) -> dict[str, object]:
        return json.loads(path.with_name(f"{path.name}.json").read_text())

    return settings_of
