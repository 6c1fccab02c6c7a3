"""A bundle of graphs that only rearrange and scale, and ways to run the command on it."""

import json
import logging
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
from toy_files import GENERATE

from lvdm_rt.video import VideoWriter

# An interrupt may come between the opening of a file and its owner; the process ends then anyway.
_WARNINGS = ("-W", "error", "-W", "ignore::ResourceWarning")


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory):
    toy_frames = pytest.importorskip("toy_frames")  # needs onnx

    def make(weight=0.7):
        return toy_frames.write_bundle(tmp_path_factory.mktemp("bundles") / "toy", weight)

    return make


@pytest.fixture(scope="session")
def toy(make_bundle):
    return make_bundle()


@pytest.fixture(scope="session")
def make_told(tmp_path_factory):
    """Write a bundle that reads text; see `write_prompted_bundle`."""
    toy_prompted = pytest.importorskip("toy_prompted")  # needs onnx

    def make(**how):
        return toy_prompted.write_prompted_bundle(
            tmp_path_factory.mktemp("bundles") / "told", **how
        )

    return make


@pytest.fixture(scope="session")
def told(make_told):
    return make_told()


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run `lvdm-rt` in this process, in a directory of its own: (exit code, stdout, stderr)."""
    from lvdm_rt import cli

    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["lvdm-rt", *words])
        code = cli.run(words)
        return code, *capfd.readouterr()

    return command


@pytest.fixture
def generate(command, toy):
    """Generate 12 frames where no flag says otherwise; returns what is said on the way.

    A test that expects it to fail says with which exit `code`.
    """

    def generate(out, *flags, bundle=toy, code=0):
        words = ("generate", "-o", out, "--bundle", bundle, "--frames", "12", "--seed", "7")
        got, _, err = command(*words, *flags)
        assert got == code, err
        return err

    return generate


@pytest.fixture
def stopped(generate, monkeypatch):
    """Generate until the first frames are written, where an error comes up: by default Ctrl-C."""

    def stopped(*flags, error=None, **how):
        code = 130 if error is None else 1
        with monkeypatch.context() as patch:
            write = Mock(side_effect=error or KeyboardInterrupt)
            patch.setattr(VideoWriter, "write", write)
            return generate(*flags, code=code, **how)

    return stopped


@pytest.fixture
def start(tmp_path):
    """Start `lvdm-rt` as a process of its own."""
    started = []

    def start(*arguments, stderr=subprocess.PIPE):
        process = subprocess.Popen(
            [sys.executable, *_WARNINGS, "-c", GENERATE, *map(str, arguments)],
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
def _what_loggers_say_is_restored():
    loggers = [logging.getLogger(n) for n in ("lvdm_engines", "lvdm_engines.opening", "lvdm_rt")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def settings_of(tmp_path):
    """Return what the file beside a video tells of it."""
    return lambda name: json.loads((tmp_path / f"{name}.json").read_text())


@pytest.fixture
def frames_of(tmp_path):
    """Return the frames of an archive."""

    def frames_of(name):
        with np.load(tmp_path / name) as archive:
            return archive["frames"]

    return frames_of
