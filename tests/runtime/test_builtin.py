"""The promises of `test_properties`, once more with the real kernels of the built-in model."""

import numpy as np
import pytest
from toy_arrays import videos_of

from lvdm_engines.bundle import builtin_bundles
from lvdm_engines.errors import NumericsError
from lvdm_rt import GenerateOptions, Pipeline

pytestmark = pytest.mark.skipif(
    "sky-tiny" not in builtin_bundles(), reason="this checkout has no built-in model"
)


@pytest.fixture(scope="module")
def pipeline():
    with Pipeline.open("sky-tiny", "cpu") as pipeline:
        yield pipeline


@pytest.fixture(scope="module", params=["cpu", pytest.param("openvino", marks=pytest.mark.slow)])
def each_pipeline(request):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    with Pipeline.open("sky-tiny", request.param) as pipeline:
        yield pipeline


def video_of(pipeline, **options):
    settings = {"frames": 24, "steps": 3, "seed": 7} | options
    return videos_of(pipeline, GenerateOptions(**settings))[0]


def test_one_seed_gives_one_video_within_one_level_for_any_grouping(each_pipeline):
    one = video_of(each_pipeline, batch_size=1).astype(int)
    many = video_of(each_pipeline, batch_size=4, videos=2).astype(int)
    assert np.abs(one - many).max() <= 1


def test_exact_videos_are_bit_identical_for_any_grouping(each_pipeline):
    one = video_of(each_pipeline, batch_size=1, exact=True)
    many = video_of(each_pipeline, batch_size=4, videos=2, exact=True)
    np.testing.assert_array_equal(one, many)


@pytest.mark.slow
def test_no_seam_shows_between_decode_windows(pipeline):
    options = GenerateOptions(frames=96, seed=7, videos=2)
    model, settings = pipeline.manifest.model, pipeline.settings(options)
    frames = np.stack([*videos_of(pipeline, options).values()]).astype(np.float32)
    change = np.abs(np.diff(frames, axis=1)).mean(axis=(0, 2, 3, 4))  # of frame i to i + 1
    per_latent = model.frames_per_latent
    period = (model.decode_window - settings.overlap) * per_latent
    into = (np.arange(len(change)) + 1) % period  # where in its window frame i + 1 lies
    # a window fades in from its first frame on, and the one before it ends an overlap later
    at_seam = (into == 0) | (into == settings.overlap * per_latent % period)
    assert change[at_seam].mean() <= 1.15 * change[~at_seam].mean()


@pytest.mark.slow
def test_a_continued_video_has_no_seam_to_its_condition(pipeline):
    given = video_of(pipeline, frames=40, steps=50)
    options = GenerateOptions(frames=24)
    new = np.concatenate(list(pipeline.stream(options, condition=given))).astype(np.float32)
    step = np.abs(new[0] - given[-1]).mean()
    inside = np.abs(np.diff(new, axis=0)).mean(axis=(1, 2, 3))
    assert step <= 3 * inside.max() + 3  # decoding what was encoded moves pixels a little


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_decoder_that_fails_is_named_although_its_bytes_look_like_black(
    pipeline, value, monkeypatch
):
    decoder = pipeline._model.sessions["decoder"]
    run = decoder.run

    def failing(feeds):
        latents = feeds["latents"].copy()
        latents[0, 0, 1, 2, 3] = value
        answer = run({"latents": latents})
        assert not answer["frames"][0, 4].any()
        return answer

    monkeypatch.setattr(decoder, "run", failing)
    with pytest.raises(NumericsError, match="the decoder returned NaN or infinity"):
        video_of(pipeline)
