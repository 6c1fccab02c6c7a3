"""The paper's experiment: which settings it compares, and what it leaves behind."""

import json
from unittest.mock import Mock

import msgspec
import pytest
from click.testing import CliRunner
from toy_pipelines import PerfectPipeline, manifest

from lvdm_engines.errors import ConfigError, OptionsError
from lvdm_engines.manifest import PredictFacts
from lvdm_rt.pipeline import Pipeline
from lvdm_tools.quality import experiment_command as experiment
from lvdm_tools.quality import placed
from lvdm_tools.quality.experiment import QUESTIONS, questions


def chained(**facts):
    """A model for the autoregressive mode."""
    names = ("encoder", "decoder", "predict")[: 2 if facts.get("predict", 1) is None else 3]
    made = manifest(names, "chain")
    model = {"predict": PredictFacts(4, 1, 1), "interpolate": None, "noise_levels": 250, **facts}
    return msgspec.structs.replace(made, model=msgspec.structs.replace(made.model, **model))


class ChainedPipeline(PerfectPipeline):
    def __init__(self):
        self.manifest = chained()


@pytest.fixture(autouse=True)
def fakes(monkeypatch, tmp_path):
    """Keep features in a new place, in groups of two videos, and open fakes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(placed, "GROUP", 2)
    opened = {"sky": PerfectPipeline, "chain": ChainedPipeline}
    monkeypatch.setattr(Pipeline, "open", lambda name, *_: opened[name]())
    load = Mock(side_effect=lambda name: Mock(manifest=opened[name]().manifest))
    monkeypatch.setattr(experiment, "load_bundle", load)


def run(*words):
    few = ["--clips", 2, "--frames", 32, "--block", 16, "--every", 1, "--features", "sky"]
    words = [*map(str, (*few, *words))]
    return CliRunner().invoke(experiment.command, words, catch_exceptions=False)


def labels(subjects):
    return [(one.label, one.what, one.settings) for one in subjects]


def test_both_modes_are_asked_every_question_with_their_defaults_first():
    asked = questions({"hierarchical": ("a", manifest()), "autoregressive": ("b", chained())})
    assert tuple(asked) == QUESTIONS
    assert labels(asked["modes"]) == [
        ("hierarchical", "a", {"mode": "hierarchical"}),
        ("autoregressive", "b", {"mode": "autoregressive"}),
    ]
    told = [one.label for one in asked["perturbation"] if one.what == "b"]
    assert told[0] == "autoregressive"
    assert told[-1] == "autoregressive, noise_level=100"
    assert {one.what for one in asked["guidance"]} == {"a", "b"}
    assert all(subjects[0] == asked["modes"][0] for subjects in asked.values())


def test_a_model_without_perturbed_conditions_is_not_asked_about_them():
    plain = chained(noise_levels=None)
    assert "perturbation" not in questions({"autoregressive": ("b", plain)})
    assert "modes" not in questions({"autoregressive": ("b", plain)})


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"hierarchical": ("b", chained())}, "b has no interpolate graph"),
        ({"autoregressive": ("a", manifest())}, "a has one of stride 4, expected one .* stride 1"),
        ({"autoregressive": ("b", chained(predict=None))}, "b has no predict graph"),
    ],
)
def test_a_model_that_was_not_trained_for_its_mode_is_refused(models, told):
    with pytest.raises(ConfigError, match=told):
        questions(models)


@pytest.mark.slow
def test_one_command_leaves_a_plot_of_each_question_and_all_numbers(monkeypatch, tmp_path):
    asked, stream = [], PerfectPipeline.stream_videos

    def stream_videos(self, options):
        asked.append(options)
        return stream(self, options)

    monkeypatch.setattr(PerfectPipeline, "stream_videos", stream_videos)
    done = run("sky", "--autoregressive", "chain", "--out", tmp_path / "x")
    assert {file.name for file in (tmp_path / "x").iterdir()} == {
        *(f"{question}.png" for question in QUESTIONS),
        *("experiment.md", "experiment.csv", "experiment.json"),
    }
    table = (tmp_path / "x" / "experiment.md").read_text()
    assert table in done.output
    assert "| last frames / first |" in table
    assert "perturbation: question 2 of 4" in done.output
    found = json.loads((tmp_path / "x" / "experiment.json").read_text())
    subjects = {point["subject"] for point in found["points"]}
    assert len(asked) == len(subjects)  # what is in several questions is sampled once
    assert len(found["points"]) == len(subjects) * 2 * 6
    assert len(found["ageing"]) == len(subjects) * 5  # all but the kernel distance
    run("sky", "--autoregressive", "chain", "--out", tmp_path / "x", "--force")
    assert len(asked) == len(subjects)  # all was kept


def test_reports_that_exist_are_kept_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(PerfectPipeline, "stream_videos", Mock(side_effect=AssertionError))
    (tmp_path / "modes.png").write_text("mine")
    with pytest.raises(OptionsError, match=r"modes\.png: it exists"):
        run("sky", "--out", tmp_path)
    with pytest.raises(OptionsError, match=r"cannot make .*modes\.png"):
        run("sky", "--out", tmp_path / "modes.png" / "below")
