import json
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
import toy
from click.testing import CliRunner

from lvdm_engines.bundle import load_bundle
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.errors import ConfigError, OptionsError
from lvdm_engines.manifest import LatentFacts
from lvdm_rt.long.sampling import LatentChunk
from lvdm_rt.options import GenerateOptions, resolve
from lvdm_rt.pipeline import Chunk, Pipeline
from lvdm_tools.data.source import HELD_OUT
from lvdm_tools.data.synth import sky_clip
from lvdm_tools.quality import command as quality
from lvdm_tools.quality import scorecard
from lvdm_tools.quality.evaluate import Protocol, evaluate, generate

GRAPHS = ("encoder", "decoder", "predict", "interpolate")


def manifest(names=GRAPHS):
    """A model whose latents are its frames, four to a latent."""
    latent = LatentFacts(channels=12, size=(2, 2), scale=1.0, shift=0.0)
    graphs = {name: toy.graph_facts(f"{name}.onnx", inputs=(), outputs=()) for name in names}
    return toy.manifest(name="fake", model=toy.model_facts(latent=latent), graphs=graphs)


def to_latents(frames):
    """Put four frames of three colours into the channels of one latent, losing nothing."""
    t, h, w = len(frames) // 4, *frames.shape[1:3]
    return frames.reshape(t, 4, h, w, 3).transpose(1, 4, 0, 2, 3).reshape(12, t, h, w)


def to_frames(latents):
    _, t, h, w = latents.shape
    return latents.reshape(4, 3, t, h, w).transpose(2, 0, 3, 4, 1).reshape(4 * t, h, w, 3)


class PerfectPipeline:
    """A model that has learnt the data: its videos are skies that no other part draws."""

    def __init__(self, graphs=GRAPHS):
        self.manifest = manifest(graphs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def settings(self, options):
        return resolve(options, self.manifest)

    def condition_frames(self, options):
        return 6

    def stream_videos(self, options):
        for start in range(0, options.frames, 4):
            for video in range(options.first_video, options.first_video + options.videos):
                count = min(4, options.frames - start)
                yield Chunk(video, start, self.frames(video, start, count))

    def frames(self, video, start, count):
        return sky_clip(0, count, 16, index=HELD_OUT + 5000 + video, start=start)

    def stream(self, options, *, condition):
        assert condition.shape == (8, 16, 16, 3)  # six frames are asked, latents hold four
        yield condition[-1:]
        yield condition

    def sample_latents(self, options, *, condition):
        yield LatentChunk(0, 0, to_latents(np.repeat(condition[-1:], 4, axis=0)))

    def encode(self, frames):
        return to_latents(frames)

    def decode(self, latents):
        frames = to_frames(latents)
        yield frames[:3]
        yield frames[3:]


class GreyPipeline(PerfectPipeline):
    """A model that gives grey frames whatever it is asked."""

    def frames(self, video, start, count):
        return np.full((count, 16, 16, 3), 90, np.uint8)

    def stream(self, options, *, condition):
        yield self.frames(0, 0, 4)

    def decode(self, latents):
        yield np.full_like(to_frames(latents), 90)


def measured(pipeline, say=lambda _: None, **protocol):
    """Measure a few short clips, and no long videos unless they are asked for."""
    few = {"clips": 4, "frames": 8, "conditions": 1, "long_videos": 0}
    return evaluate(pipeline, Protocol(**few | protocol), say)


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
    assert "| Fréchet distance / floor | ≤ 3 | – |" in scorecard.markdown(report)


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


@pytest.fixture
def bundle(tmp_path):
    """A directory that is a bundle as far as its manifest goes."""
    empty = manifest(names=())
    model = msgspec.structs.replace(empty.model, predict=None, interpolate=None)
    with BundleWriter(tmp_path / "bundle") as writer:
        writer.finish(msgspec.structs.replace(empty, model=model))
    return tmp_path / "bundle"


@pytest.fixture
def run(monkeypatch, bundle):
    """Return a function that measures a few short clips of a perfect model, beside others."""

    def fake_open(name, backend):
        return GreyPipeline() if "grey" in name else PerfectPipeline()

    def run(*arguments, clips=2):
        few = ["--clips", clips, "--frames", 8, "--conditions", 1, "--long-videos", 0]
        words = [*map(str, [bundle, *few, *arguments])]
        return CliRunner().invoke(quality.command, words, catch_exceptions=False)

    monkeypatch.setattr(Pipeline, "open", fake_open)
    return run


@pytest.mark.slow
def test_the_command_writes_numbers_and_table_and_records_them(run, tmp_path, bundle):
    numbers, table = tmp_path / "q.json", tmp_path / "q.md"
    places = ["--json", numbers, "--markdown", table, "--record", "--beside", "untrained=grey"]
    result = run(*places, "--steps", 7, clips=48)
    assert result.exit_code == 0, result.output
    written = json.loads(numbers.read_text())
    assert written["settings"]["steps"] == 7
    assert written["reconstruction"]["psnr"] is None  # infinite: JSON has no such number
    assert written["beside"]["untrained"]["frechet"]["ratio"] > 10
    assert "| measure | target | fake | untrained |" in table.read_text()
    assert table.read_text() in result.output
    recorded = load_bundle(bundle).manifest.quality
    assert recorded["continuity"] == recorded["continuity_without_hand_over"] == 0
    assert "without hand-over 0.00; both frames decoded 0.00" in table.read_text()
    assert "48 clips of 8 frames, synth, seed 0, mode=hierarchical" in recorded["measured_on"]
    assert recorded["frechet_over_floor_untrained"] > 10
    assert "psnr_db" not in recorded  # infinite


def test_a_report_that_exists_is_replaced_by_force_only(run, tmp_path):
    numbers = tmp_path / "q.json"
    numbers.write_text("mine")
    with pytest.raises(OptionsError, match=r"q\.json: it exists; --force replaces it"):
        run("--json", numbers)
    assert numbers.read_text() == "mine"
    assert run("--json", numbers, "--force").exit_code == 0
    assert json.loads(numbers.read_text())["bundle"] == "fake"


def test_a_report_that_cannot_be_written_leaves_the_old_one(run, tmp_path, monkeypatch):
    numbers = tmp_path / "q.json"
    numbers.write_text("mine")
    monkeypatch.setattr("lvdm_engines.atomic.sync", Mock(side_effect=OSError(28, "No space left")))
    with pytest.raises(ConfigError, match=r"cannot write .*No space left"):
        run("--json", numbers, "--force")
    assert [path.read_text() for path in tmp_path.glob("q.json*")] == ["mine"]


def test_what_fails_to_be_told_takes_nothing_else_along(run, tmp_path, monkeypatch, bundle):
    numbers = tmp_path / "q.json"
    monkeypatch.setattr(quality, "_print", Mock(side_effect=BrokenPipeError))
    with pytest.raises(BrokenPipeError):
        run("--json", numbers, "--record")
    assert json.loads(numbers.read_text())["bundle"] == "fake"
    assert load_bundle(bundle).manifest.quality["continuity"] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--beside", "grey"], "expected LABEL=BUNDLE"),
        (["--beside", "\udcff=grey"], "expected LABEL=BUNDLE"),
        (["--json", "nowhere/q.json"], r"cannot write nowhere/q\.json: there is no folder"),
        (["--markdown", "."], "it is a folder"),
        (["--json", "a" * 240 + ".json"], "File name too long"),
        (["--json", "q.out", "--markdown", "./q.out"], "cannot hold both numbers and table"),
    ],
)
def test_what_the_command_cannot_do_is_said_before_anything_is_measured(
    run, monkeypatch, words, told
):
    monkeypatch.setattr(Pipeline, "open", Mock(side_effect=AssertionError))
    with pytest.raises((ConfigError, OptionsError), match=told):
        run(*words)
