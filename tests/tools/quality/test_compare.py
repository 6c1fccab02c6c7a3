import json
from contextlib import nullcontext
from unittest.mock import Mock

import numpy as np
import pytest
from click.testing import CliRunner
from toy_films import write
from toy_pipelines import PerfectPipeline

from lvdm_engines.errors import BundleError, ConfigError, OptionsError, TrainingError
from lvdm_rt.pipeline import Pipeline
from lvdm_tools.data.synth import sky_clip
from lvdm_tools.quality import command as quality
from lvdm_tools.quality import metrics, placed
from lvdm_tools.quality.distances import frechet_distance
from lvdm_tools.quality.intervals import interval
from lvdm_tools.quality.networks import FeatureNetwork


class FreezingPipeline(PerfectPipeline):
    """A model whose videos stand still from frame 32 on."""

    arithmetic = "frozen"

    def frames(self, video, start, count):
        return (
            super()
            .frames(video, min(start, 32), count if start < 32 else 1)
            .repeat(1 if start < 32 else count, axis=0)
        )


@pytest.fixture(autouse=True)
def few(monkeypatch, tmp_path):
    """Keep features in a new place, in groups of two videos, and open fakes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(placed, "GROUP", 2)
    fakes = {"sky": PerfectPipeline, "frozen": FreezingPipeline}

    def fake_open(name, *_):
        if name not in fakes:
            raise BundleError(f"{name}: no bundle")
        return fakes[name]()

    monkeypatch.setattr(Pipeline, "open", fake_open)


def run(*words):
    """Compare a few videos in the features of the fake encoder, which is quick."""
    given = ["--features", "sky", *map(str, words)] if "--features" not in words else words
    return CliRunner().invoke(quality.command, [*map(str, given)], catch_exceptions=False)


def points(path):
    return json.loads(path.read_text())["points"]


def folder_of(path, videos, frames=16, size=16, rate=8):
    for number in range(videos):
        pictures = sky_clip(0, frames, size, index=number)
        write(path / f"{number}.mp4", list(pictures), rate=rate, options={"qscale:v": "2"})
    return path


@pytest.mark.slow
def test_what_fades_over_time_is_seen_block_by_block(tmp_path):
    files = [tmp_path / name for name in ("o.json", "o.csv", "o.md", "o.png")]
    places = ["--json", files[0], "--csv", files[1], "--markdown", files[2], "--plot", files[3]]
    length = ["--frames", 64, "--block", 32, "--clips", 4]
    done = run("--over-time", "frozen", "still=sky", *length, *places)
    found = {(p["subject"], p["first"], p["measure"]): p for p in points(files[0])}
    assert len(found) == 2 * 2 * 6
    for measure in ("frame-to-frame change", "Fréchet distance"):
        early, late = (found["frozen", first, measure] for first in (0, 32))
        assert early == {**found["still", 0, measure], "subject": "frozen"}
        assert early["low"] <= early["value"] <= early["high"]
        assert early["real"] == late["real"]
    assert found["frozen", 32, "frame-to-frame change"]["value"] == 0
    assert found["still", 32, "frame-to-frame change"]["value"] > 0.1
    distances = [found[s, 32, "Fréchet distance"]["value"] for s in ("frozen", "still")]
    assert distances[0] > distances[1]
    lines = files[1].read_text().splitlines()
    assert lines[0] == "subject,first,last,measure,value,real,std,low,high"
    assert len(lines) == 1 + len(found)
    assert files[2].read_text() in done.output
    assert "| frozen | 32–64 |" in done.output
    assert "encoder of fake" in done.output
    assert files[3].read_bytes().startswith(b"\x89PNG")


def test_settings_of_one_bundle_are_compared_in_one_plot(tmp_path):
    files = ["--json", tmp_path / "c.json", "--plot", tmp_path / "c.png"]
    run("--compare", "sky:steps=4,sampler=ddim", "more=sky:steps=9", "--clips", 2, *files)
    labels = {p["subject"] for p in points(tmp_path / "c.json")}
    assert labels == {"sky:steps=4,sampler=ddim", "more"}
    assert {(p["first"], p["last"]) for p in points(tmp_path / "c.json")} == {(0, 16)}
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_repeats_tell_their_standard_deviation(tmp_path):
    run("--compare", "sky", "--clips", 2, "--repeats", 3, "--json", tmp_path / "r.json")
    assert all(p["std"] > 0 and p["low"] is None for p in points(tmp_path / "r.json"))


def test_two_folders_are_compared_without_a_bundle(tmp_path):
    made, data = folder_of(tmp_path / "made", 4, frames=20), folder_of(tmp_path / "data", 5)
    done = run(made, "--data", data, "--features", "random", "--json", tmp_path / "f.json")
    assert "made has 4 of the 128 videos wanted" in done.output
    assert "8 real clips of 5 videos: floors are too small" in done.output
    assert "covariances of 4 clips in 24 dimensions are singular" in done.output
    by_name = {p["measure"]: p for p in points(tmp_path / "f.json")}
    skies = np.stack([sky_clip(0, 16, 16, index=i) for i in range(4)])
    assert by_name["contrast"]["value"] == pytest.approx(metrics.contrast(skies), rel=0.05)


def test_an_interrupted_evaluation_goes_on_where_it_stopped(monkeypatch, tmp_path):
    asked, stream = [], PerfectPipeline.stream_videos

    def stream_videos(self, options):
        asked.append(options.first_video)
        if asked == [0, 2]:
            raise KeyboardInterrupt
        return stream(self, options)

    monkeypatch.setattr(PerfectPipeline, "stream_videos", stream_videos)
    words = ["--compare", "sky", "--clips", 4, "--json", tmp_path / "i.json"]
    assert run(*words).exit_code == 1
    run(*words)
    assert asked == [0, 2, 2]
    run(*words, "--force")
    assert asked == [0, 2, 2]  # all was kept
    run("--compare", "sky:steps=3", "--clips", 2)
    assert asked == [0, 2, 2, 0]


def test_real_clips_are_placed_once_for_all(monkeypatch, tmp_path):
    data = folder_of(tmp_path / "data", 3)
    run("--compare", "sky", "--clips", 4, "--data", data)
    again = Mock(side_effect=AssertionError("read again"))
    monkeypatch.setattr("lvdm_tools.quality.subjects.read_clip", again)
    run("--compare", "frozen", "--clips", 4, "--data", data)
    (data / "0.mp4").write_bytes((data / "1.mp4").read_bytes())
    with pytest.raises(AssertionError, match="read again"):
        run("--compare", "frozen", "--clips", 4, "--data", data)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sky:frames=4"], "got 'frames', expected settings out of mode"),
        (["sky:steps=many"], "sky:steps=many: .*steps"),
        (["sky:steps=0"], "steps"),
        (["--compare", "sky", "sky"], "got the label 'sky', expected one of its own"),
        (["--compare", "nothing"], "nothing: no bundle"),
        (["--compare", "sky", "--clips", 4, "--frames", 20], "clips of 16 frames divide"),
        (["--over-time", "sky", "--frames", 96], "96 frames in blocks of 64; expected"),
        (["--compare", "sky", "--record"], "--record goes with the report of one bundle"),
        (["--compare", "sky", "--skip", 4], "--skip goes with the report of one bundle"),
        (["--compare", "sky", "--features", "i3d.pt"], "there is no such file; FVD needs"),
        (["--compare", "sky", "--plot", "nowhere/a.png"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_measured(monkeypatch, words, told):
    monkeypatch.setattr(PerfectPipeline, "stream_videos", Mock(side_effect=AssertionError))
    with pytest.raises((ConfigError, OptionsError, BundleError), match=told):
        run(*words)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"size": 32}, "mixes sizes or rates: 0.mp4 has 16×16 at 8 frames per second, .* 32×32"),
        ({"rate": 25}, "16×16 at 8 frames per second, .* 16×16 at 25 frames"),
        (None, "no video has 32 frames, the longest has 16; lower --frames"),
    ],
)
def test_folders_that_cannot_be_measured_are_refused(tmp_path, others, told):
    made = folder_of(tmp_path / "made", 2)
    if others:
        folder_of(tmp_path / "made" / "more", 1, **others)
    with pytest.raises(ConfigError, match=told):
        run(made, "--frames", 16 if others else 32)


def test_short_videos_are_left_out_and_counted(tmp_path):
    made = folder_of(tmp_path / "made", 2)
    folder_of(tmp_path / "made" / "short", 1, frames=4)
    assert "made: left out 1 videos shorter than 16 frames" in run(made).output


def test_an_empty_folder_and_settings_of_a_folder_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="holds no readable video"):
        run(tmp_path / "empty")
    with pytest.raises(OptionsError, match="takes no settings"):
        run(f"{tmp_path / 'empty'}:steps=3")
    with pytest.raises(TrainingError, match="no video has the 32 frames that clips of 32"):
        run("sky", "--data", folder_of(tmp_path / "made", 1), "--frames", 32, "--clips", 2)


def test_videos_of_another_size_are_refused(tmp_path):
    made = folder_of(tmp_path / "made", 2, size=32)
    with pytest.raises(ConfigError, match="made has 32×32, sky has 16×16; compare those of one"):
        run("--compare", made, "sky", "--clips", 2)


@pytest.fixture
def network(monkeypatch):
    """Let a function be the network."""

    def network(name, function, **published):
        made = FeatureNetwork(name, name, function, **published)
        opened = Mock(return_value=nullcontext(made))
        monkeypatch.setattr("lvdm_tools.quality.comparing.open_network", opened)

    return network


def test_a_network_that_sees_nothing_is_told(network):
    network("blind", lambda clips: np.zeros((len(clips), 3)))
    with pytest.raises(ConfigError, match="blind: all real clips have the same features"):
        run("sky", "--clips", 2)


def test_fewer_clips_than_published_values_have_are_told(network):
    network("I3D", lambda clips: clips.reshape(len(clips), -1)[:, :3] * 1.0, published=True)
    assert "2 clips, where published values of FVD are of 2048" in run("sky", "--clips", 2).output


def test_the_interval_of_a_mean_is_that_of_the_textbook():
    rows = np.random.default_rng(3).standard_normal((400, 1, 1))
    low, high = interval(lambda x: float(x.mean()), [rows], draws=2000)
    half = 1.96 * rows.std() / 20
    assert (low, high) == pytest.approx((rows.mean() - half, rows.mean() + half), abs=half / 10)


def test_the_interval_of_a_distance_holds_it_and_is_as_wide_as_it_varies():
    rng = np.random.default_rng(4)
    pairs = [(rng.standard_normal((60, 3)), rng.standard_normal((60, 3)) + 1) for _ in range(60)]
    spread = np.std([frechet_distance(a, b) for a, b in pairs])
    low, high = interval(frechet_distance, pairs[0])
    assert low < frechet_distance(*pairs[0]) < high
    assert (high - low) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.3)
