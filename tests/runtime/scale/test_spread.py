"""A video that many workers make is the one that a single process makes."""

import threading
import time

import numpy as np
import pytest
from msgspec.structs import replace
from toy_arrays import make_manifest, make_sessions, videos_of
from toy_pools import at_random, spread_over

from lvdm_engines.errors import SessionError
from lvdm_rt import GenerateOptions, Pipeline
from lvdm_rt.scale.spread import AHEAD

OPTIONS = GenerateOptions(frames=203, steps=3, exact=True)
GIVEN = np.random.default_rng(1).integers(0, 255, (24, 16, 16, 3), np.uint8)


def alone(options, **how):
    manifest = make_manifest()
    with Pipeline(manifest, jittering(manifest)) as pipeline:
        return videos_of(pipeline, options, **how)


def jittering(manifest):
    """Sessions whose results depend on how many rows share a call, as those of real kernels do."""
    sessions = make_sessions(manifest)
    for name in ("predict", "interpolate", "short"):
        sessions[name].jitter = True
    return sessions


def spread(options, count, delay=lambda _: 0.0, **how):
    manifest = make_manifest()
    with spread_over(manifest, count, sessions=jittering(manifest), delay=delay) as (pipeline, _):
        return videos_of(pipeline, options, **how)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for video, frames in expected.items():
        np.testing.assert_array_equal(got[video], frames)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, {}),
        ({"refine": 0}, {}),
        ({"batch_size": 1}, {}),
        ({"batch_size": 3, "videos": 5, "frames": 90}, {}),
        ({"exact": False, "batch_size": 3, "videos": 4, "frames": 90}, {}),
        ({"mode": "autoregressive", "frames": 80}, {}),
        ({"mode": "short", "frames": 17, "videos": 3}, {}),
        ({"overlap": 0}, {}),
        ({"frames": 1}, {}),
        ({}, {"condition": GIVEN}),
        ({"overlap": 1, "batch_size": 2, "videos": 2}, {"condition": GIVEN}),
    ],
)
def test_frames_are_those_of_one_process_whatever_ends_first(count, changes, how):
    options = replace(OPTIONS, **changes)
    assert_same(spread(options, count, at_random(count), **how), alone(options, **how))


def test_frames_that_come_first_are_not_waited_for(make_fake):
    with spread_over(make_manifest(), 3, delay=lambda _: 0.002) as (pipeline, pool):
        stream = pipeline.stream(replace(OPTIONS, frames=4000))
        with stream:
            next(stream)
            assert len(pool.done) < 40  # of thousands


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "autoregressive", "frames": 500, "overlap": 0},
        {"mode": "short", "frames": 17, "videos": 40, "batch_size": 1},
    ],
)
def test_sampling_does_not_run_ahead_of_decoding(changes, tmp_path):
    options = replace(OPTIONS, steps=1, **changes)
    for resume in (False, True):  # what is read back would pile up as well
        told = []
        spread(options, 1, work=tmp_path, resume=resume, progress=told.append)
        ahead = max(now.steps / now.total_steps - now.frames / now.total_frames for now in told)
        assert ahead < 0.5


def test_a_slow_reader_holds_the_workers_back():
    options = replace(OPTIONS, frames=100_000, batch_size=2)
    with spread_over(make_manifest(), 2) as (pipeline, pool), pipeline.stream(options) as stream:
        next(stream)
        time.sleep(0.3)
        begun = len(pool.done)
        time.sleep(0.2)
        assert len(pool.done) == begun < 20 * AHEAD


def test_an_interrupted_run_goes_on_with_another_number_of_workers(tmp_path):
    whole = alone(OPTIONS)
    for count in (3, 1, 2):
        manifest = make_manifest()
        with (
            spread_over(manifest, count, sessions=jittering(manifest)) as (pipeline, _),
            pipeline.stream_videos(OPTIONS, work=tmp_path, resume=True) as stream,
        ):
            next(stream)
    clips = list(tmp_path.glob("video-*/*.npy"))
    assert clips
    assert_same(spread(OPTIONS, 4, at_random(0), work=tmp_path, resume=True), whole)
    assert_same(alone(OPTIONS, work=tmp_path, resume=True), whole)


@pytest.mark.parametrize("lost", [["predict-000001"], ["predict-000000", "interpolate-000003"]])
@pytest.mark.parametrize("mode", ["hierarchical", "autoregressive"])
def test_a_clip_that_is_missing_in_the_middle_is_made_again(tmp_path, lost, mode):
    options = replace(OPTIONS, mode=mode, overlap=0)
    whole = spread(options, 2, work=tmp_path)
    for clip in lost:
        (tmp_path / f"video-000000/{clip}.npy").unlink(missing_ok=True)
    assert_same(spread(options, 3, at_random(2), work=tmp_path, resume=True), whole)


@pytest.mark.parametrize("graph", ["predict", "interpolate", "decoder", "encoder"])
def test_an_error_of_a_worker_comes_as_it_is_and_leaves_what_is_finished(tmp_path, graph):
    def fail(_):
        raise SessionError("pulled the plug")

    manifest = make_manifest()
    sessions = jittering(manifest)
    sessions[graph].hook = fail
    with (
        spread_over(manifest, 3, sessions=sessions) as (pipeline, _),
        pytest.raises(SessionError, match="pulled the plug"),
    ):
        videos_of(pipeline, OPTIONS, condition=GIVEN, work=tmp_path)
    sessions[graph].hook = lambda _: None
    again = spread(OPTIONS, 2, condition=GIVEN, work=tmp_path, resume=True)
    assert_same(again, alone(OPTIONS, condition=GIVEN))


def test_closing_from_another_thread_does_not_wait_for_the_workers():
    with spread_over(make_manifest(), 2, delay=lambda _: 0.6) as (pipeline, _):
        stream = pipeline.stream(OPTIONS)
        reader = threading.Thread(target=lambda: list(stream))
        reader.start()
        time.sleep(0.1)
        started = time.monotonic()
        stream.close()
        reader.join()
        assert time.monotonic() - started < 0.3


def test_progress_counts_every_step_and_frame_once(tmp_path):
    seen = []
    spread(OPTIONS, 3, at_random(3), progress=seen.append)
    assert seen == sorted(seen)
    assert (seen[-1].steps, seen[-1].frames) == (seen[-1].total_steps, seen[-1].total_frames)


def test_what_workers_run_on_is_told(caplog):
    caplog.set_level("INFO", "lvdm_engines.opening")
    with spread_over(make_manifest(), 1):
        assert "all graphs run on arrays, in the workers" in caplog.text
