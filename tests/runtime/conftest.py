"""Pipelines of the model of arrays, and ways to run the command on bundles of simple graphs."""

import json
import logging
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from toy_arrays import MODEL, make_manifest, make_sessions, our_threads
from toy_files import GENERATE

from lvdm_rt import Pipeline

# An interrupt may come between the opening of a file and its owner; the process ends then anyway.
_WARNINGS = ("-W", "error", "-W", "ignore::ResourceWarning")


@pytest.fixture
def manifest():
    return make_manifest()


@pytest.fixture
def sessions(manifest):
    return make_sessions(manifest)


@pytest.fixture
def pipeline(manifest, sessions):
    with Pipeline(manifest, sessions) as pipeline:
        yield pipeline


@pytest.fixture
def make_fake():
    """Make manifest and sessions of a model that differs in some facts."""

    def make(**facts):
        manifest = make_manifest(msgspec.structs.replace(MODEL, **facts))
        return manifest, make_sessions(manifest)

    return make


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert our_threads() == []


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
