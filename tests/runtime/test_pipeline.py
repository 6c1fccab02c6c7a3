"""The library's main entry: what it refuses, how it stops, and what fails with which words."""

from types import SimpleNamespace

import numpy as np
import pytest

import lvdm_rt
from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.errors import (
    DeviceMemoryError,
    NumericsError,
    OptionsError,
    PlanError,
    SessionError,
)
from lvdm_engines.manifest import ScheduleFacts
from lvdm_rt import GenerateOptions, Pipeline

BLACK = np.zeros((16, 16, 16, 3), np.uint8)


def consume(pipeline, **options):
    condition = options.pop("condition", None)
    options = {"frames": 60} | options
    stream = pipeline.stream_videos(GenerateOptions(**options), condition=condition)
    return [chunk.frames for chunk in stream]


def poison(session, at, value, row=0):
    """Make one row of a session's output bad at one call."""
    compute = session.compute

    def bad(**feeds):
        out = compute(**feeds)
        if len(session.rows) == at:
            out[row] = value
        return out

    session.compute = bad


@pytest.mark.parametrize(
    ("graph", "at", "row", "value", "where"),
    [
        ("predict", 1, 0, np.nan, r"step 1 of 4 \(t = 16\), predict clip 0 of video 0"),
        ("predict", 6, 1, np.inf, r"step 2 of 4 \(t = 11\), predict clip 1 of video 1"),
        ("interpolate", 1, 0, np.nan, r"step 1 of 4 \(t = 16\), infill clip 1 of video 0"),
        ("interpolate", 4, 1, -np.inf, r"step 4 of 4 \(t = 1\), infill clip 1 of video 1"),
    ],
)
def test_nan_or_infinity_is_named_by_clip_and_step(
    pipeline, sessions, graph, at, row, value, where
):
    poison(sessions[graph], at, value, row)
    with pytest.raises(NumericsError, match=where + ": the network returned NaN or infinity"):
        consume(pipeline, videos=2)


def test_latents_that_overflow_after_the_last_step_are_named(make_fake):
    manifest, sessions = make_fake(schedule=ScheduleFacts("sqrt-linear", 20, 0.5, 0.9))
    sessions["short"].compute = lambda latents, timestep: np.full_like(latents, 3e38)
    with pytest.raises(NumericsError, match="after the last step, short clip 0 of video 0"):
        consume(Pipeline(manifest, sessions), mode="short", frames=4, sampler="dpmpp_2m", steps=1)


def test_nan_from_the_encoder_is_named(pipeline, sessions):
    poison(sessions["encoder"], 1, np.nan)
    with pytest.raises(NumericsError, match="the encoder returned NaN"):
        consume(pipeline, condition=BLACK)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("decoder", "while one window was decoded"),
        ("encoder", "while one window was encoded"),
    ],
)
def test_a_device_that_is_too_small_says_what_to_lower(pipeline, sessions, graph, message):
    sessions[graph].most = 0
    condition = BLACK if graph == "encoder" else None
    with pytest.raises(DeviceMemoryError, match=message):
        consume(pipeline, videos=3, condition=condition)


@pytest.mark.parametrize("graph", ["predict", "interpolate", "decoder"])
def test_a_failure_in_any_thread_reaches_the_caller_and_stops_the_others(pipeline, sessions, graph):
    def fail(call):
        if call == 3:
            raise SessionError(f"{graph} broke")

    sessions[graph].hook = fail
    with pytest.raises(SessionError, match=f"{graph} broke"):
        consume(pipeline, frames=4000)
    assert len(sessions["predict"].rows) < 500  # of 668 for the whole video


def test_what_the_progress_callback_raises_reaches_the_caller(pipeline):
    def refuse(now):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(pipeline.stream(GenerateOptions(frames=500), progress=refuse))


def test_sessions_that_were_passed_in_stay_open(manifest, sessions):
    with Pipeline(manifest, sessions):
        pass
    assert not any(session.closed for session in sessions.values())


def test_two_iterators_of_one_pipeline_do_not_disturb_each_other(pipeline):
    alone = [np.concatenate(consume(pipeline, seed=seed)) for seed in (1, 2)]
    streams = [pipeline.stream(GenerateOptions(frames=60, seed=seed)) for seed in (1, 2)]
    pairs = list(zip(*streams, strict=True))
    for got, expected in zip(zip(*pairs, strict=True), alone, strict=True):
        np.testing.assert_array_equal(np.concatenate(got), expected)


def test_progress_counts_every_step_and_every_frame(pipeline):
    seen = []
    list(pipeline.stream_videos(GenerateOptions(frames=50, videos=3), progress=seen.append))
    steps = [now.steps for now in seen]
    assert steps == sorted(steps)
    last = seen[-1]
    assert last.steps == last.total_steps
    assert last.frames == last.total_frames == 150


def test_guidance_is_one_call_of_twice_the_rows_and_none_for_the_first_clip(pipeline, sessions):
    consume(pipeline, batch_size=1)
    assert sessions["predict"].rows == [1] * 4 + [2] * 4
    assert set(sessions["interpolate"].rows) == {2}


def test_without_guidance_no_row_is_doubled(pipeline, sessions):
    consume(pipeline, batch_size=1, guidance=0.0)
    assert {*sessions["predict"].rows, *sessions["interpolate"].rows} == {1}


def test_several_videos_run_as_one_batch(pipeline, sessions):
    consume(pipeline, videos=3, guidance=0.0)
    assert set(sessions["predict"].rows) == {3}


def test_encoding_and_decoding_stand_alone(pipeline):
    values = np.repeat(np.arange(100, 150, dtype=np.uint8), 4)
    frames = np.broadcast_to(values[:, None, None, None], (200, 16, 16, 3))
    latents = pipeline.encode(np.ascontiguousarray(frames))
    assert latents.shape == (2, 50, 4, 4)
    whole = np.concatenate(list(pipeline.decode(latents)))
    pieces = np.concatenate(list(pipeline.decode(latents[:, a : a + 7] for a in range(0, 50, 7))))
    assert whole.shape == frames.shape
    np.testing.assert_array_equal(whole, pieces)


def test_sampled_latents_decode_to_the_streamed_frames(pipeline):
    options = GenerateOptions(frames=52, seed=5)
    chunks = [chunk.latents for chunk in pipeline.sample_latents(options)]
    frames = np.concatenate(list(pipeline.decode(chunks)))[:52]
    np.testing.assert_array_equal(frames, np.concatenate(list(pipeline.stream(options))))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.uint8), r"got frames uint8 \(4, 8, 8, 3\), expected uint8"),
        (np.zeros((4, 16, 16), np.uint8), "crop and resize them first"),
        (np.zeros((4, 16, 16, 3), np.float32), "got frames float32"),
        (np.zeros((0, 16, 16, 3), np.uint8), "expected at least one frame"),
        ("clip.mp4", "got frames 'clip.mp4', expected uint8"),
        ([[0]], r"got frames \[\[0\]\], expected uint8"),
    ],
)
def test_frames_of_another_shape_are_refused_at_once(pipeline, frames, message):
    with pytest.raises(OptionsError, match=message):
        pipeline.stream(GenerateOptions(), condition=frames)
    with pytest.raises(OptionsError, match=message):
        pipeline.encode(frames)


@pytest.mark.parametrize(
    ("latents", "got"),
    [
        (np.zeros((3, 2, 4, 4), np.float32), r"float32 \(3, 2, 4, 4\)"),
        (np.zeros((2, 2, 4, 4)), r"float64 \(2, 2, 4, 4\)"),
        (np.full((2, 2, 4, 4), "x"), "<U1"),
        ([[0.0]], "list"),
        (None, "NoneType"),
        ("latents.npz", "str"),
    ],
)
def test_latents_of_another_shape_are_refused(pipeline, latents, got):
    expected = r"expected float32 \(2, t, 4, 4\)"
    with pytest.raises(OptionsError, match=f"got latents {got}.*, {expected}"):
        list(pipeline.decode(latents))


@pytest.mark.parametrize("graph", ["encoder", "decoder", "predict", "interpolate"])
def test_a_missing_graph_is_named_before_anything_runs(manifest, sessions, graph):
    del sessions[graph]
    with pytest.raises(PlanError, match=f"fake has no {graph} graph"):
        Pipeline(manifest, sessions).stream(GenerateOptions(), condition=BLACK)


def test_sessions_are_opened_as_the_caller_asks(manifest, sessions, monkeypatch):
    asked = []
    bundle = SimpleNamespace(manifest=manifest)
    monkeypatch.setattr("lvdm_rt.pipeline.load_bundle", lambda name: bundle)
    monkeypatch.setattr("lvdm_rt.pipeline.open_sessions", lambda *a: asked.append(a) or sessions)
    Pipeline.open("toy", "cpu", SessionOptions(threads=1)).close()
    assert asked[0][2:] == ("cpu", SessionOptions(threads=1))


def test_autoregressive_frames_of_a_keyframe_model_come_with_a_warning(pipeline, caplog):
    pipeline.stream(GenerateOptions(mode="autoregressive"))
    assert "trained on every 4th latent" in caplog.text


@pytest.mark.parametrize("per_latent", [1, 2])
def test_other_frame_rates_of_latents_give_the_exact_count_too(make_fake, per_latent):
    manifest, sessions = make_fake(frames_per_latent=per_latent)
    sessions["decoder"].compute = lambda latents: np.zeros(
        (len(latents), 4 * per_latent, 16, 16, 3), np.uint8
    )
    frames = consume(Pipeline(manifest, sessions), frames=27)
    assert sum(map(len, frames)) == 27


def test_a_window_of_one_latent_needs_no_overlap(make_fake):
    manifest, sessions = make_fake(decode_window=1)
    assert sum(map(len, consume(Pipeline(manifest, sessions), frames=27))) == 27
    with pytest.raises(OptionsError, match="got overlap 1, expected a whole number from 0 to 0"):
        Pipeline(manifest, sessions).settings(GenerateOptions(overlap=1))


def test_the_public_names_of_the_library():
    assert sorted(lvdm_rt.__all__) == [
        "Chunk",
        "GenerateOptions",
        "LatentChunk",
        "LvdmError",
        "Pipeline",
        "Progress",
        "SessionOptions",
        "Settings",
        "WorkError",
    ]
    shown = {name for name in dir(lvdm_rt) if not name.startswith("__")}
    assert shown == set(lvdm_rt.__all__)
    assert (lvdm_rt.__version__, "__version__" in dir(lvdm_rt)) == ("0.1.0", True)
