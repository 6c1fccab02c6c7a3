"""`lvdm-tools gpu-check` without a GPU: what it measures on fakes, what it says, what it leaves."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from lvdm_engines.errors import BackendError, DeviceMemoryError, ExportError, OptionsError
from lvdm_engines.manifest import TensorSpec
from lvdm_tools import cli
from lvdm_tools.bench import command as gpu_check_command
from lvdm_tools.bench import run as gpu_check
from lvdm_tools.bench.end_to_end import Busy, Watched
from lvdm_tools.bench.run import Check
from lvdm_tools.bench.table import page


class FakeSession:
    """A session that computes nothing, and runs out of memory at batch 32."""

    closed = 0
    inputs = (TensorSpec("latents", "float32", ("b", 2)),)
    outputs = inputs

    def run(self, feeds):
        if len(feeds["latents"]) == 32:
            raise DeviceMemoryError("predict: out of memory; lower the batch size")
        return dict(feeds)

    def device_seconds(self, feeds, times):
        return 0.001

    def copy_seconds(self, feeds, changing, times):
        assert changing == ["latents"]
        return 0.0002

    def close(self):
        FakeSession.closed += 1


@pytest.fixture
def check(tmp_path, monkeypatch):
    """A check of two backends, one usable, with everything heavy replaced."""
    saved = []
    graphs = {"predict": None, "decoder": None}
    bundle = SimpleNamespace(manifest=SimpleNamespace(model=None, graphs=graphs))
    fakes = {
        "bundle_of": lambda *_: bundle,
        "_gflop": lambda *_: {"predict": 290.0, "decoder": 2850.0},
        "backend_report": lambda: {"tensorrt": None, "tensorrt-rtx": "no such GPU", "cuda": None},
        "build_plans": lambda *_: [],
        "check_reference": lambda *_: None,
        "compare_graph": lambda *_: {"most": 0.001, "problems": []},
        "open_session": lambda *_: FakeSession(),
        "_feeds": lambda graph, bundle, batch: {"latents": np.zeros((batch, 2), np.float32)},
        "end_to_end": lambda *_: {"frames_per_second": 10.0, "outside_sessions": 0.01},
        "gpus": lambda **_: [],
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(gpu_check, name, fake)
    made = Check(
        work=tmp_path,
        report=lambda line: None,
        save=lambda found: saved.append(json.loads(json.dumps(found))),
        device="cpu",
        backends=("tensorrt", "tensorrt-rtx"),
        variants=(),
        seconds=0.0,
    )
    return SimpleNamespace(check=made, saved=saved, patch=monkeypatch)


def test_every_number_is_saved_as_soon_as_it_is_there(check):
    found = gpu_check.run(check.check)
    tensorrt = found["backends"]["tensorrt"]
    assert list(tensorrt["predict"]) == ["1", "2", "8", "32"]
    assert tensorrt["predict"]["8"]["device_ms"] == 1.0
    assert tensorrt["predict"]["8"]["copies_ms"] == 0.2
    assert list(tensorrt["parity"]) == ["predict", "decoder"]
    assert tensorrt["predict"]["32"] == {"failed": "predict: out of memory; lower the batch size"}
    assert list(tensorrt["decoder"]) == ["1"]
    assert found["backends"]["tensorrt-rtx"] == {"problem": "no such GPU"}
    assert len(check.saved) > 8
    assert check.saved[-1] == json.loads(json.dumps(found))
    assert [target["backend"] for target in found["targets"]] == ["tensorrt"] * 3


@pytest.mark.parametrize(
    "error",
    [
        BackendError("no"),
        TypeError("incompatible function arguments"),
        AttributeError("no attribute"),
        ImportError("no library"),
        OSError("no such file"),
        ValueError("bad"),
        KeyError("t"),
        RuntimeError("CUDA"),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    "name", ["build_plans", "compare_graph", "open_session", "end_to_end", "backend_report"]
)
def test_one_failure_of_any_kind_does_not_hide_the_rest(check, name, error):
    def fail(*_):
        raise error

    check.patch.setattr(gpu_check, name, fail)
    tensorrt = gpu_check.run(check.check)["backends"]["tensorrt"]
    cells = {
        "build_plans": lambda: tensorrt["build_seconds"],
        "compare_graph": lambda: tensorrt["parity"]["decoder"],
        "open_session": lambda: tensorrt["predict"]["8"],
        "end_to_end": lambda: tensorrt["end_to_end"],
        "backend_report": lambda: {"failed": tensorrt["problem"]},
    }
    told = cells[name]()["failed"]
    assert str(error) in told
    assert told == str(error) or told.startswith(f"{type(error).__name__}: ")
    assert ("end_to_end" in tensorrt) == (name not in ("build_plans", "backend_report"))


def test_an_unexpected_failure_keeps_where_it_came_from(check):
    def fail(*_):
        raise TypeError("incompatible function arguments")

    check.patch.setattr(gpu_check, "end_to_end", fail)
    told = gpu_check.run(check.check)["backends"]["tensorrt"]["end_to_end"]
    assert told["failed"] == "TypeError: incompatible function arguments"
    assert "in fail" in told["trace"]


def test_a_session_that_cannot_be_closed_costs_nothing_but_itself(check):
    def close(self):
        raise ExportError("CUDA_ERROR_ILLEGAL_ADDRESS")

    check.patch.setattr(FakeSession, "close", close)
    tensorrt = gpu_check.run(check.check)["backends"]["tensorrt"]
    assert tensorrt["decoder"]["1"]["ms"] >= 0
    assert tensorrt["end_to_end"]["frames_per_second"] == 10.0


def test_a_reference_of_another_model_is_said_of_every_graph(check):
    def refuse(*_):
        raise OptionsError("it has no graph 'decoder'")

    check.patch.setattr(gpu_check, "check_reference", refuse)
    parity = gpu_check.run(check.check)["backends"]["tensorrt"]["parity"]
    assert parity["predict"] == parity["decoder"] == {"failed": "it has no graph 'decoder'"}


def test_a_variant_of_torch_that_fails_leaves_the_others_and_is_let_go_of(check):
    released = []
    yardstick = gpu_check.yardstick
    check.patch.setattr(gpu_check, "torch_graphs", lambda *_: {"predict": 1, "decoder": 2})
    check.patch.setattr(yardstick, "matrix_peak", lambda *_: 100.0)
    check.patch.setattr(yardstick, "time_module", lambda *_: 5.0)
    check.patch.setattr(yardstick, "release", released.append)

    def variant(module, name, device):
        if name == "one":
            raise ValueError("no such layout")
        return module

    check.patch.setattr(yardstick, "variant", variant)
    found = gpu_check.run(replace(check.check, variants=("one", "two")))
    assert found["torch"]["one"]["predict"]["1"]["failed"] == "ValueError: no such layout"
    assert found["torch"]["two"]["decoder"] == {"1": 5.0}
    assert released == ["cpu"] * 4


def test_sessions_are_closed_after_their_timings(check):
    FakeSession.closed = 0
    gpu_check.run(check.check)
    assert FakeSession.closed == 2


def test_the_report_is_written_whole(tmp_path):
    gpu_check.write('{"a": 1}', tmp_path / "gpu-check.json")
    assert json.loads((tmp_path / "gpu-check.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["gpu-check.json"]


def test_time_is_counted_once_however_many_sessions_run():
    busy = Busy()
    with busy, busy:
        assert busy.seconds == 0
    assert busy.seconds > 0


def test_the_devices_time_of_a_video_is_that_of_its_runs_by_shape():
    timed = []

    class Session:
        inputs = outputs = ()

        def run(self, feeds):
            return {}

        def device_seconds(self, feeds, times):
            timed.append(feeds["latents"].shape)
            return 0.5 * len(feeds["latents"])

        def copy_seconds(self, feeds, changing, times):
            return 0.0

    watched = Watched(Session(), Busy())
    watched.run({"latents": np.ones((4, 2), np.float32)})
    watched.restart()  # after the first video
    for rows in (1, 2, 1, 1):
        watched.run({"latents": np.ones((rows, 2), np.float32)})
    assert watched.device_seconds() == 3 * 0.5 + 1.0
    assert sorted(timed) == [(1, 2), (2, 2)]


def test_a_session_that_cannot_time_the_device_says_so():
    watched = Watched(SimpleNamespace(run=lambda feeds: {}), Busy())
    watched.run({"latents": np.ones(1)})
    assert watched.device_seconds() is None


def test_without_a_gpu_the_command_says_so_and_writes_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_check_command, "driver_problem", lambda: "no NVIDIA driver")
    assert cli.run(["gpu-check", "-o", str(tmp_path / "out")]) == 1
    assert (
        "needs an NVIDIA GPU, and nothing was measured: no NVIDIA driver" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert cli.run(["gpu-check", "--dry-run", "--no-torch", "-o", str(out)]) == 1
    assert "cannot be written (Not a directory); free space there" in capsys.readouterr().err


def test_a_check_that_shows_nothing_is_saved_and_exits_with_1(check, tmp_path, capsys):
    class Failing(FakeSession):
        def run(self, feeds):
            raise BackendError("no kernel image")

    check.patch.setattr(gpu_check, "open_session", lambda *_: Failing())
    assert (
        cli.run(
            ["gpu-check", "--dry-run", "--no-torch", "--backend", "tensorrt", "-o", str(tmp_path)]
        )
        == 1
    )
    assert "tensorrt fails at predict, decoder" in capsys.readouterr().err
    assert "no kernel image" in (tmp_path / "gpu-check.md").read_text()


@pytest.mark.slow
def test_a_dry_run_goes_through_everything_on_the_cpu(tmp_path):
    options = ["--dry-run", "--seconds", "0", "--frames", "9", "-o", str(tmp_path)]
    done = CliRunner().invoke(gpu_check_command.command, options)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    cpu = found["backends"]["cpu"]
    assert cpu["parity"]["decoder"]["most"] < 1e-4
    assert cpu["predict"]["2"]["ms"] > 0
    assert cpu["end_to_end"]["frames"] == 9
    assert (tmp_path / "gpu-check.md").read_text() == page(found)
