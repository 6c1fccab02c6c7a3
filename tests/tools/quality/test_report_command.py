import json
import sys
from unittest.mock import Mock

import msgspec
import pytest
from click.testing import CliRunner
from toy_pipelines import GreyPipeline, PerfectPipeline, manifest

from lvdm_engines.bundle import load_bundle
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.errors import ConfigError, OptionsError
from lvdm_rt.pipeline import Pipeline
from lvdm_tools.quality import command as quality


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
        return GreyPipeline(name="sky-tiny") if "grey" in name else PerfectPipeline()

    def run(*arguments, clips=2, subject=bundle):
        few = ["--clips", clips, "--frames", 8, "--conditions", 1, "--long-videos", 0]
        words = [*map(str, [subject, *few, *arguments])]
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
    assert "| measure | fake | untrained |" in table.read_text()
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
    with pytest.raises(ConfigError, match=r"cannot write .*the disk is full"):
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
        (["--json", "q.out", "--markdown", "./q.out"], "cannot hold two reports"),
    ],
)
def test_what_the_command_cannot_do_is_said_before_anything_is_measured(
    run, monkeypatch, words, told
):
    monkeypatch.setattr(Pipeline, "open", Mock(side_effect=AssertionError))
    with pytest.raises((ConfigError, OptionsError), match=told):
        run(*words)


def test_the_built_in_model_is_held_to_its_targets_and_fails_where_it_misses_them(run, tmp_path):
    table = tmp_path / "q.md"
    told = r"sky-tiny misses its targets: reconstruction PSNR, dB, .*contrast"
    with pytest.raises(ConfigError, match=told):
        run("--markdown", table, clips=48, subject="grey")
    assert "| measure | target | sky-tiny |" in table.read_text()
    assert "| contrast | within 20% of real |" in table.read_text()


@pytest.mark.slow
def test_no_other_model_is_held_to_them_and_none_by_few_clips_or_other_data(run, tmp_path):
    assert "target" not in run(clips=48).output
    assert "target" not in run(subject="grey").output
    assert run(subject="grey").exit_code == 0


@pytest.mark.parametrize("option", [["--repeats", 2], ["--plot", "x.png"], ["--block", 16]])
def test_what_only_a_comparison_heeds_is_refused_in_a_report(run, option):
    with pytest.raises(OptionsError, match=f"{option[0]} goes with --compare or --over-time"):
        run(*option)


def test_a_report_without_torch_ends_before_anything_is_measured(run, monkeypatch):
    monkeypatch.delitem(sys.modules, "lvdm_tools.quality.random_features", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(quality, "_measure", Mock(side_effect=AssertionError))
    with pytest.raises(ModuleNotFoundError, match="torch"):
        run()
