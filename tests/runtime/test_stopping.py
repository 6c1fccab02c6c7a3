"""Runs that nobody reads to the end: closed, failed, or forgotten."""

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from lvdm_rt import GenerateOptions, Pipeline


@pytest.fixture
def pipeline(manifest, sessions):
    with Pipeline(manifest, sessions) as pipeline:
        yield pipeline


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_the_iterator_stops_within_one_network_call(pipeline, sessions, taken):
    stream = pipeline.stream(GenerateOptions(frames=10_000, steps=1))
    for _ in range(taken):
        next(stream)
    calls = len(sessions["interpolate"].rows)
    stream.close()
    assert len(sessions["interpolate"].rows) <= calls + 20  # what ran ahead, not the rest
    assert not [t for t in threading.enumerate() if t.name.startswith("lvdm-rt")]


def test_an_exception_thrown_into_the_loop_stops_the_threads(pipeline):
    stream = pipeline.stream(GenerateOptions(frames=10_000, steps=1))
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    assert not [t for t in threading.enumerate() if t.name.startswith("lvdm-rt")]


def test_leaving_the_pipeline_stops_iterators_that_still_run(manifest, sessions):
    with Pipeline(manifest, sessions) as pipeline:
        stream = pipeline.stream(GenerateOptions(frames=10_000, steps=1))
        next(stream)
    assert not [t for t in threading.enumerate() if t.name.startswith("lvdm-rt")]
    with pytest.raises(StopIteration):
        next(stream)


ABANDONED = """
    import importlib.util, sys
    spec = importlib.util.spec_from_file_location("fake", sys.argv[1])
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    from lvdm_rt import GenerateOptions, Pipeline
    manifest = fake.make_manifest()
    pipeline = Pipeline(manifest, fake.make_sessions(manifest))
    sys.kept = pipeline.stream(GenerateOptions(frames=10_000))
    next(sys.kept)
    import atexit, threading
    atexit._run_exitfuncs()
    print([t.name for t in threading.enumerate() if t.name.startswith("lvdm-rt")])
"""


def test_a_program_that_forgets_an_iterator_stops_its_threads_before_it_exits():
    fake = Path(__file__).with_name("conftest.py")
    argv = [sys.executable, "-c", textwrap.dedent(ABANDONED), str(fake)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
