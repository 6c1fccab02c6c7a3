"""Runs that nobody reads to the end: closed, failed, or forgotten."""

import textwrap
import threading
import time

import numpy as np
import pytest
from toy_arrays import our_threads
from toy_files import python, with_tests_on_path

from lvdm_engines.errors import SessionError
from lvdm_rt import GenerateOptions, Pipeline

ENDLESS = GenerateOptions(frames=10_000, steps=1)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_the_iterator_stops_within_one_network_call(pipeline, sessions, taken):
    stream = pipeline.stream(ENDLESS)
    for _ in range(taken):
        next(stream)
    calls = len(sessions["interpolate"].rows)
    stream.close()
    assert len(sessions["interpolate"].rows) <= calls + 20  # what ran ahead, not the rest
    assert our_threads() == []


def test_an_exception_in_the_readers_loop_stops_the_threads(pipeline):
    def interrupted():
        with pipeline.stream(ENDLESS) as stream:
            next(stream)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert our_threads() == []


def test_leaving_the_pipeline_stops_iterators_that_still_run(manifest, sessions):
    with Pipeline(manifest, sessions) as pipeline:
        stream = pipeline.stream(ENDLESS)
        next(stream)
    assert our_threads() == []
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("close", ["stream", "pipeline"])
def test_another_thread_ends_a_run_that_is_being_read(manifest, sessions, close):
    sessions["predict"].seconds = sessions["interpolate"].seconds = 0.02
    pipeline = Pipeline(manifest, sessions)
    stream = pipeline.stream(ENDLESS)
    read, errors = [], []

    def reader():
        try:
            read.extend(len(frames) for frames in stream)
        except BaseException as err:  # noqa: BLE001 - it is looked at below
            errors.append(err)

    thread = threading.Thread(target=reader)
    thread.start()
    while not read:
        time.sleep(0.01)
    (stream if close == "stream" else pipeline).close()
    thread.join(5)
    assert (thread.is_alive(), errors) == (False, [])
    assert sum(read) < 10_000
    assert our_threads() == []


def test_frames_that_are_being_decoded_can_be_closed_from_another_thread(pipeline, manifest):
    shape = (manifest.model.latent.channels, 5000, *manifest.model.latent.size)
    frames, read = pipeline.decode(np.zeros(shape, np.float32)), []
    thread = threading.Thread(target=lambda: read.extend(len(piece) for piece in frames))
    thread.start()
    while not read:
        time.sleep(0.001)
    frames.close()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("kind", ["stream", "sample_latents"])
def test_a_progress_callback_may_close_the_run(pipeline, kind):
    streams = []
    stream = getattr(pipeline, kind)(ENDLESS, progress=lambda done: streams[0].close())
    streams.append(stream)
    assert sum(1 for _ in stream) < 100


@pytest.mark.parametrize("close", ["stream", "pipeline"])
def test_a_call_of_a_network_that_takes_hours_is_cancelled(pipeline, sessions, close):
    running, ended = [], threading.Event()

    def hours(call):
        running.append(threading.get_ident())
        ended.wait(10)
        raise SessionError("predict: cannot run: cancelled")

    def cancel(thread):
        if thread in running:
            ended.set()

    sessions["predict"].hook, sessions["predict"].cancel = hours, cancel
    stream = pipeline.stream(ENDLESS)
    threading.Timer(0.1, (pipeline if close == "pipeline" else stream).close).start()
    assert list(stream) == []
    assert ended.is_set()
    assert our_threads() == []


MODEL = """
    from toy_arrays import make_manifest, make_sessions, our_threads
    from lvdm_rt import GenerateOptions, Pipeline

    def begun():
        manifest = make_manifest()
        stream = Pipeline(manifest, make_sessions(manifest)).stream(GenerateOptions(frames=999))
        next(stream)
        return stream

"""
DROPPED = """
    begun()
    import gc
    gc.collect()
"""
ABANDONED = """
    import atexit, sys
    sys.kept = begun()
    atexit._run_exitfuncs()
"""
LEFT = """
    print(our_threads())
"""


@pytest.mark.parametrize("program", [ABANDONED, DROPPED], ids=["abandoned", "dropped"])
def test_a_program_that_forgets_an_iterator_stops_its_threads_before_it_exits(program):
    code = textwrap.dedent(MODEL + program + LEFT)
    done = python(code, timeout=60, env=with_tests_on_path())
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
