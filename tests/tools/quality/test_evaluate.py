import numpy as np
import pytest
from msgspec import structs
from toy_pipelines import GreyPipeline, PerfectPipeline, to_latents
from toy_prompted import write_prompted_bundle

from lvdm_engines.errors import ConfigError, OptionsError
from lvdm_rt.long.sampling import LatentChunk
from lvdm_rt.options import GenerateOptions
from lvdm_rt.pipeline import Pipeline
from lvdm_tools.data.clip import ClipSpec
from lvdm_tools.data.source import open_source
from lvdm_tools.quality import scorecard
from lvdm_tools.quality.evaluate import Protocol, evaluate, generate


def measured(pipeline, say=lambda _: None, **protocol):
    """Measure a few short clips, and no long videos unless they are asked for."""
    few = {"clips": 4, "frames": 8, "conditions": 1, "long_videos": 0}
    return evaluate(pipeline, Protocol(**few | protocol), say)


@pytest.mark.slow
def test_a_perfect_model_reaches_every_target_and_its_parts_are_announced():
    said = []
    many = {"clips": 48, "conditions": 2, "long_videos": 8}
    report = measured(PerfectPipeline(), said.append, **many)
    assert report.reconstruction.psnr == np.inf
    assert report.reconstruction.ssim == pytest.approx(1, abs=1e-5)
    assert report.generation.frechet.ratio < 2
    joined = report.continuation
    assert joined.ratio == joined.raw == joined.decoded == 0
    assert 0.5 < report.continuation.real < 2
    assert report.long_videos.windows == pytest.approx(1, abs=0.1)
    assert report.long_videos.keyframes == pytest.approx(1, abs=0.1)
    assert report.reached
    parts = ["reading", "encoding", "generating", "continuing", "generating"]
    assert [line.split()[0] for line in said] == parts


@pytest.mark.slow
def test_a_grey_model_misses_every_target():
    report = measured(GreyPipeline(), clips=48, conditions=2)
    made = report.generation
    assert not report.reconstruction.reached
    assert made.contrast.difference == 1
    assert made.frame_change.difference == 1
    assert not made.spectrum_slope.reached
    assert not made.mean_colour.reached
    assert made.frechet.ratio > 10
    assert report.continuation.decoded == 0  # grey follows grey
    assert report.continuation.ratio > 1.5
    assert not report.reached


def test_a_jump_at_every_decode_window_is_found_and_does_not_pass():
    class Jumping(PerfectPipeline):
        def frames(self, video, start, count):
            period = 4 * (4 - self.settings(GenerateOptions()).overlap)
            return super().frames(video, start, count) // 2 + 60 * (start // period % 2)

    found = measured(Jumping(), long_videos=2, long_frames=96).long_videos
    assert found.windows > 10
    assert (found.videos, found.frames) == (2, 96)
    assert not found.reached


def test_videos_that_no_window_divides_have_no_seams():
    found = measured(PerfectPipeline(), long_videos=1, long_frames=16).long_videos
    assert found.windows is None
    assert found.reached


def test_what_the_hand_over_hides_is_told_and_a_jump_of_the_denoiser_does_not_pass():
    class Jumping(PerfectPipeline):
        def sample_latents(self, options, *, condition):
            yield LatentChunk(0, 0, to_latents(255 - np.repeat(condition[-1:], 4, axis=0)))

    found = measured(Jumping(), conditions=2).continuation
    assert found.ratio == 0
    assert found.raw == found.decoded > 1.5
    assert not found.reached


def test_a_mode_that_continues_nothing_has_no_continuity():
    assert measured(PerfectPipeline(), sampling={"mode": "short"}).continuation is None


def test_few_clips_give_no_distance_and_so_do_not_pass():
    report = measured(PerfectPipeline())
    assert report.generation.frechet is None
    assert not report.reached
    assert "| Fréchet distance / floor | – |" in scorecard.markdown(report)


def test_clips_can_be_cut_from_later_in_the_videos():
    pipeline = PerfectPipeline()
    cut = generate(pipeline, Protocol(clips=3, frames=8, skip=6))
    np.testing.assert_array_equal(cut[2], pipeline.frames(2, 6, 8))


def test_a_bundle_without_an_encoder_is_measured_as_far_as_it_goes():
    report = measured(PerfectPipeline(("decoder", "predict")))
    assert report.reconstruction is None
    assert report.continuation is None
    assert report.generation.clips == 4


@pytest.mark.parametrize(
    ("protocol", "named"),
    [
        ({"clips": 1}, "got 1 clips"),
        ({"skip": -1}, "skip -1"),
        ({"frames": 10}, "a multiple of the 4 frames of a latent"),
        ({"frames": 4}, "8 or more"),
        ({"sampling": {"mode": "funny"}}, "funny"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(protocol, named):
    said = []
    with pytest.raises((ConfigError, OptionsError), match=named):
        measured(PerfectPipeline(), said.append, **protocol)
    assert not said


def test_a_model_that_reads_text_is_told_what_unseen_clips_show(tmp_path):
    asked = []

    class Watched(Pipeline):
        def stream_videos(self, options, **how):
            asked.append(options)
            return super().stream_videos(options, **how)

    bundle = write_prompted_bundle(tmp_path / "told")
    with Watched.open(bundle, "cpu") as pipeline:
        report = measured(pipeline, sampling={"steps": 2})
        size = pipeline.manifest.model.frame_size
    assert report.prompts is not None
    assert report.prompts.clips == 4
    other = structs.replace(report, prompts=None)
    assert "| what captions name is shown | " in scorecard.markdown(report, {"other": other})
    assert "captions" not in scorecard.markdown(other, {"more": report})
    source = open_source("synth", ClipSpec(8, size), held_out=True)
    expected = [source.captioned(number)[1] for number in range(4)]
    assert [one.prompt for one in asked[0]] == expected
    assert [one.first_video for one in asked[0]] == [0, 1, 2, 3]
