"""Pictures of latents without a decoder, and those that a run gives on its way."""

import numpy as np
import pytest
from toy_arrays import make_manifest, make_sessions, videos_of

from lvdm_engines.bundle import builtin_bundles
from lvdm_engines.errors import PlanError
from lvdm_engines.preview_map import PreviewMap
from lvdm_rt import GenerateOptions, Pipeline
from lvdm_rt.decoding.preview import colours
from lvdm_rt.long import sampling

MAP = PreviewMap((100.0, 50.0, 0.0), ((10.0, 0.0, 1.0), (0.0, 20.0, 1.0)))


@pytest.fixture
def seeing():
    """A pipeline whose manifest has a map."""
    import msgspec

    manifest = msgspec.structs.replace(make_manifest(), preview=MAP)
    with Pipeline(manifest, make_sessions(manifest)) as pipeline:
        yield pipeline


def test_a_colour_is_the_bias_and_what_each_channel_adds():
    latents = np.zeros((2, 1, 1, 3), np.float32)
    latents[:, 0, 0] = [[1, -1, 40], [2, 0.5, np.nan]]
    pictures = colours(latents, MAP)
    assert pictures.dtype == np.uint8
    assert pictures[0, 0, :2].tolist() == [[110, 90, 3], [90, 60, 0]]
    assert pictures.shape == (1, 1, 3, 3)  # what is no number, or beyond, ends at the limits


def test_each_network_call_is_told_with_its_clips(seeing):
    told = []
    options = GenerateOptions(frames=40, videos=2, steps=3, sampler="dpmpp_2m", batch_size=2)
    videos_of(seeing, options, preview=told.append)
    first = told[:3]
    assert [[(c.video, c.stage, c.clip) for c in clips] for clips in first] == [
        [(0, "predict", 0), (1, "predict", 0)]
    ] * 3
    assert first[0][0].pictures.shape == (4, 4, 4, 3)  # all of a first clip is new
    assert {clip.stage for clips in told for clip in clips} == {"predict", "infill", "refine"}
    shapes = {c.stage: c.pictures.shape[0] for clips in told for c in clips}
    assert (shapes["infill"], shapes["refine"]) == (3, 3)  # without what is given at both ends


def test_the_last_estimate_of_a_clip_is_what_it_became(seeing):
    told = []
    options = GenerateOptions(
        frames=16, steps=4, sampler="dpmpp_2m", refine=0, mode="autoregressive"
    )
    videos_of(seeing, options, preview=told.append)
    (chunk, *_) = seeing.sample_latents(options)
    np.testing.assert_array_equal(told[3][0].pictures, colours(chunk.latents, MAP)[:4])


def test_a_preview_changes_no_frame_and_costs_nothing_where_nobody_looks(seeing, monkeypatch):
    options = GenerateOptions(frames=24, steps=3)
    seen = videos_of(seeing, options, preview=lambda _: None)
    monkeypatch.setattr(sampling, "estimating", None)  # which nobody may call
    np.testing.assert_array_equal(videos_of(seeing, options)[0], seen[0])


def test_what_a_preview_raises_ends_the_run(seeing):
    def full(_):
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        videos_of(seeing, GenerateOptions(frames=8, steps=2), preview=full)


def test_a_model_without_a_map_says_so_at_once(pipeline):
    with pytest.raises(PlanError, match="fake has no map from latents to colours"):
        pipeline.stream_videos(GenerateOptions(frames=8), preview=lambda _: None)


@pytest.mark.slow
@pytest.mark.skipif("sky-tiny" not in builtin_bundles(), reason="there is no built-in model")
def test_the_built_in_model_looks_like_its_previews():
    with Pipeline.open("sky-tiny", "cpu") as model:
        facts = model.manifest.model
        options = GenerateOptions(frames=16, seed=99, videos=12, mode="short", refine=0)
        latents = [chunk.latents[:, :4] for chunk in model.sample_latents(options)]
        shown = np.stack([colours(z, model.manifest.preview) for z in latents]).astype(float)
        frames = np.stack([np.concatenate(list(model.decode(z))) for z in latents])
        per, rows, columns = facts.downsample
        blocks = frames.reshape(12, -1, per, 8, rows, 8, columns, 3).mean(axis=(2, 4, 6))
    error = shown - blocks
    assert np.abs(error).mean() < 10  # levels of 255; 7 over many clips
    assert 1 - (error**2).sum() / ((blocks - blocks.mean((0, 1, 2, 3))) ** 2).sum() > 0.94
