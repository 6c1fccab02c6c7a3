"""`lvdm-tools bench`: what it measures, what follows from it, what it shows and writes."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from lvdm_engines.bundle import load_bundle
from lvdm_engines.errors import BackendError, OptionsError
from lvdm_tools import cli
from lvdm_tools.bench import bench, command, models, paper_size
from lvdm_tools.bench.page import page

ROOT = Path(__file__).parents[3]
TINY = bench.Effort(0.0, 0.0, 20, 2, (20, 24), (1, 2), compiled=False)
FAILED = {"failed": "out of | memory"}


@pytest.fixture(scope="module")
def measured():
    """Everything, as quick as can be."""
    saved = []
    asked = bench.Bench(load_bundle("sky-tiny"), TINY, lambda _: None, saved.append, ("cpu",))
    return json.loads(json.dumps(bench.run(asked))), saved


@pytest.mark.slow
def test_every_section_holds_its_numbers_with_their_units(measured):
    found, saved = measured
    assert [*found["graphs"]] == [
        "decoder × 1",
        "distilled × 1",
        "distilled × 4",
        "encoder × 1",
        "interpolate × 1",
        "interpolate × 4",
        "predict × 1",
        "predict × 4",
    ]
    for entry in found["graphs"].values():
        assert entry["ways"].keys() == {"cpu", "torch eager"}
        for way in entry["ways"].values():
            assert way["runs"] >= 5
            assert 0 < way["low"] <= way["ms"] <= way["high"]
            assert way["gflop_per_s"] == pytest.approx(1000 * entry["gflop"] / way["ms"])
    equal, default = found["videos"]["equal"], found["videos"]["default"]
    assert equal["settings"] == "20 frames, ddim, 2 steps"
    assert equal["ways"].keys() == {"cpu", "torch eager"}
    for way in (*equal["ways"].values(), *default["ways"].values()):
        assert way["frames_per_second"] == pytest.approx(20 / way["seconds"])
        assert 0 < way["first_seconds"] <= way["seconds"]
        assert way["peak_mib"] > 50
    assert sum(found["time"]["cpu"]["shares"].values()) == pytest.approx(1, abs=0.02)
    growth = found["growth"]["cpu"]
    assert {kind: [*sizes] for kind, sizes in growth.items()} == {
        "frames": ["20", "24"],
        "batch": ["1", "2"],
        "videos": ["1"],
    }
    assert growth["frames"]["24"]["ms_per_frame"] == pytest.approx(
        1000 * growth["frames"]["24"]["seconds"] / 24
    )
    assert len(saved) == 4  # after each section


@pytest.mark.slow
def test_ratios_are_those_of_the_medians_to_torch_eager(measured):
    found, _ = measured
    ways = found["videos"]["equal"]["ways"]
    assert ways["torch eager"]["times_eager"] == 1
    seconds = {name: way["seconds"] for name, way in ways.items()}
    assert ways["cpu"]["times_eager"] == seconds["torch eager"] / seconds["cpu"]
    default = found["videos"]["default"]["ways"]["cpu"]
    assert default["times_eager"] == seconds["torch eager"] / default["seconds"]


@pytest.mark.slow
def test_the_work_of_a_graph_is_what_the_manifest_counts(measured):
    graphs, _ = measured[0]["graphs"], None
    facts = load_bundle("sky-tiny").manifest.graphs
    for name in ("decoder", "encoder", "interpolate"):  # the longest clip
        assert float(f"{graphs[f'{name} × 1']['gflop']:.4g}") == facts[name].gflop
    assert graphs["interpolate × 4"]["gflop"] == 4 * graphs["interpolate × 1"]["gflop"]


@pytest.mark.exhaustive
def test_paper_sizes_are_measured_with_their_memory(tmp_path):
    exported = paper_size.export("tiny", tmp_path / "tiny", str)
    assert exported["max_rel"] < 1e-4
    asked = bench.Bench(
        load_bundle(tmp_path / "tiny"),
        TINY,
        str,
        str,
        ("cpu",),
        ("graphs",),
        memory=True,
    )
    graphs = bench.run(asked)["graphs"]
    assert graphs.keys() == {"predict × 1", "predict × 4", "decoder × 1"}
    for name in ("predict × 1", "decoder × 1"):
        assert all(way["peak_mib"] > 50 for way in graphs[name]["ways"].values())


def way(ms, runs=5):
    return {"ms": ms, "low": 0.9 * ms, "high": 1.1 * ms, "runs": runs}


@pytest.fixture
def found():
    """Made-up numbers, as they are measured; the second backend failed."""
    video = {"seconds": 4.0, "low": 3.9, "high": 4.1, "runs": 3, "frames_per_second": 16.0}
    video |= {"first_seconds": 0.5, "peak_mib": 190.0}
    machine = {"cpu": "A CPU", "instructions": ["avx2"], "cores": 2, "threads": 2, "when": "today"}
    machine |= {"platform": "Linux", "python": "3", "packages": {"numpy": "2"}}
    machine |= {"peaks_gflop_per_s": {"fp32": 100.0, "bf16": FAILED}, "cores_of_others": 0.0}
    return {
        "bundle": "toy",
        "machine": machine,
        "refused": {"cuda": "no GPU; buy one"},
        "graphs": {
            "decoder × 1": {
                "batch": 1,
                "gflop": 10.0,
                "ways": {"cpu": way(200.0), "other": FAILED, "torch eager": way(500.0)},
            }
        },
        "videos": {
            "equal": {
                "settings": "64 frames, ddim, 50 steps",
                "ways": {
                    "cpu": dict(video),
                    "torch eager": video | {"seconds": 10.0, "peak_mib": FAILED},
                },
            },
            "default": {"settings": "64 frames, dpmpp_2m, 8 steps", "ways": {"all": FAILED}},
        },
        "time": {"cpu": {"shares": dict.fromkeys(("denoise", "decode", "both"), 0.3)}},
        "growth": {"cpu": {"frames": {"64": {"frames": 64, "seconds": 6.4}, "4096": FAILED}}},
    }


def test_what_follows_is_computed_from_the_medians(found):
    told = bench.derive(found)
    decoder = told["graphs"]["decoder × 1"]["ways"]
    assert decoder["cpu"]["gflop_per_s"] == 50.0
    assert decoder["cpu"]["of_peak"] == {"fp32": 0.5}
    assert decoder["cpu"]["times_eager"] == 2.5
    assert decoder["other"] == FAILED
    assert told["videos"]["equal"]["ways"]["cpu"]["times_eager"] == 2.5
    assert told["growth"]["cpu"]["frames"]["64"]["ms_per_frame"] == 100.0
    assert bench.derive(told) == told


def test_the_page_shows_numbers_and_reasons(found):
    text = page(bench.derive(found))
    assert "Not measured: `cuda`, no GPU." in text
    assert "| decoder × 1 | 10 | cpu | 200 (180–220, n = 5) | 50 | 50% | 2.50× |" in text
    assert "| decoder × 1 | 10 | other | failed: out of / memory | – | – | – |" in text
    assert "| 4.00 (3.90–4.10, n = 3) | 16.0 | 0.50 | 190 | 2.50× |" in text
    assert "| 64 frames, dpmpp_2m, 8 steps, the default | all | failed: out of / memory |" in text
    assert "| cpu | 30.0% | 30.0% | 30.0% |" in text
    assert "| frames 4096 | failed: out of / memory |" in text
    assert "flatter" not in text


def test_the_page_of_paper_sizes_tells_of_their_export(found):
    found["export"] = {"seconds": 328.3, "peak_mib": 5512.9}
    assert "Export and verification of the predictor: 328 s, 5,513 MiB peak.\n" in page(found)


def test_the_page_warns_of_other_programs(found):
    found["machine"]["cores_of_others"] = 1.5
    assert "other programs kept 1.5 cores busy" in page(found)
    assert "ratios flatter us" in page(found)


@pytest.mark.slow
def test_a_bundle_of_unknown_sizes_is_measured_without_torch(monkeypatch):
    monkeypatch.setattr(models, "_counted", lambda *_: False)
    with pytest.raises(OptionsError, match="none of the ready models"):
        models.likeness(load_bundle("sky-tiny").manifest)


def refuse(*_):
    raise BackendError("no kernel")


@pytest.mark.slow
def test_a_failure_in_one_section_leaves_the_others(monkeypatch):
    monkeypatch.setattr(bench, "Official", refuse)
    monkeypatch.setattr(bench.videos, "time_videos", refuse)
    monkeypatch.setattr(bench, "end_to_end", lambda *_: {"shares": {}})
    asked = bench.Bench(
        load_bundle("sky-tiny"), TINY, str, str, ("cpu",), ("graphs", "videos", "time")
    )
    found = bench.run(asked)
    ways = found["graphs"]["decoder × 1"]["ways"]
    assert ways["torch eager"] == {"failed": "no kernel"}
    assert ways["cpu"]["ms"] > 0
    assert found["videos"]["equal"]["ways"]["all"] == {"failed": "no kernel"}
    assert found["time"]["cpu"] == {"shares": {}}
    assert "failed: no kernel" in page(found)


@pytest.fixture
def quick(monkeypatch, found):
    """The command on a run that finds made-up numbers; returns what was asked."""
    asked = []

    def run(wanted):
        asked.append(wanted)
        wanted.save(found)
        return found

    monkeypatch.setattr(bench, "run", run)
    return asked


def test_the_command_writes_what_it_shows(quick, tmp_path, capsys):
    files = ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]
    words = ["bench", "--quick", "--only", "graphs", "--backend", "cpu", "--threads", "1", *files]
    assert cli.run(words) == 0
    assert (quick[0].effort, quick[0].sections) == (bench.QUICK, ("graphs",))
    assert (quick[0].backends, quick[0].threads) == (("cpu",), 1)
    assert (tmp_path / "a.md").read_text() == capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["bundle"] == "toy"
    assert cli.run(words) == 1
    assert "a.json: it exists; --force replaces it" in capsys.readouterr().err
    assert cli.run([*words, "--force"]) == 0


def test_a_page_with_markers_is_filled_between_them(quick, tmp_path, capsys):
    target = tmp_path / "benchmarks.md"
    target.write_text((ROOT / "docs/benchmarks.md").read_text("utf-8"))
    before = target.read_text().partition("<!-- bench -->")[0]
    for _ in range(2):
        assert cli.run(["bench", "--quick", "--markdown", str(target)]) == 0
    text = target.read_text()
    assert text.startswith(before)
    assert text.count("`toy` on A CPU") == text.count("<!-- /bench -->") == 1


def test_the_sections_that_can_be_asked_for_are_those_there_are():
    only = next(option for option in command.command.params if option.name == "sections")
    assert [*only.type.choices] == [*bench.SECTIONS]


def test_another_system_than_linux_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(command.Path, "exists", lambda _: False)
    assert cli.run(["bench", "sky-tiny", "--quick"]) == 1
    assert "bench needs Linux" in capsys.readouterr().err


@pytest.mark.parametrize(("sections", "grown"), [((), ["b"]), (("growth",), ["b", "a"])])
def test_growth_is_measured_on_the_first_backend_or_where_asked_on_all(
    monkeypatch, sections, grown
):
    monkeypatch.setattr(bench, "backend_report", lambda: {"c": "no", "b": None, "a": None})
    for name in ("graphs", "videos", "time"):
        monkeypatch.setitem(bench.SECTIONS, name, lambda *_: None)
    monkeypatch.setattr(bench.machine, "peaks", lambda *_: {})
    entry = {"frames": 24, "seconds": 1.0}
    monkeypatch.setattr(bench.videos, "time_growth", lambda *_: [("frames", "24", dict(entry))])
    bundle = load_bundle("sky-tiny")
    asked = bench.Bench(bundle, TINY, lambda _: None, lambda _: None, sections=sections)
    assert [*bench.run(asked)["growth"]] == grown
