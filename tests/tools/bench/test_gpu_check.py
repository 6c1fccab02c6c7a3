"""`lvdm-tools gpu-check` on stub engines: what it measures, what it says, what it leaves."""

import json
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from lvdm_engines import opening
from lvdm_engines.backends.backend import Backend
from lvdm_engines.bundle import load_bundle
from lvdm_engines.errors import DeviceMemoryError, OptionsError
from lvdm_engines.session import sizes_of
from lvdm_tools import cli
from lvdm_tools.bench import gpu_check as bench
from lvdm_tools.bench import gpu_command
from lvdm_tools.bench.end_to_end import Busy, Watched
from lvdm_tools.bench.gpu_page import page

pytestmark = pytest.mark.slow


class StubSession:
    """Answers zeros, and runs out of memory at batch 32."""

    backend = "tensorrt"

    def __init__(self, source):
        self.inputs, self.outputs = source.facts.inputs, source.facts.outputs

    def run(self, feeds):
        sizes = sizes_of(self.inputs, {name: array.shape for name, array in feeds.items()})
        if sizes["b"] == 32:
            raise DeviceMemoryError("out of memory; lower the batch size")
        return {
            spec.name: np.zeros([sizes.get(n, n) for n in spec.shape], spec.dtype)
            for spec in self.outputs
        }

    def device_seconds(self, feeds, times):
        return 0.001

    def copy_seconds(self, feeds, changing, times):
        assert set(changing) == {"latents", "timestep"} & feeds.keys()
        return 0.0002

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture
def check(tmp_path, monkeypatch):
    """A check of TensorRT, whose engines are stubs, and TensorRT-RTX, which cannot run."""
    saved = []
    problems = {"tensorrt-rtx": "no such GPU"}
    monkeypatch.setattr(
        opening,
        "load_backend",
        lambda name: Backend(
            lambda: problems.get(name), lambda source, _: lambda: StubSession(source)
        ),
    )
    monkeypatch.setattr(bench, "bundle_of", lambda *_: load_bundle("sky-tiny"))
    monkeypatch.setattr(bench, "build_plans", lambda *_: [])
    return bench.GpuCheck(
        work=tmp_path,
        report=lambda line: None,
        save=lambda found: saved.append(json.loads(json.dumps(found))),
        model="sky-tiny",
        device="cpu",
        backends=("tensorrt", "tensorrt-rtx"),
        variants=(),
        seconds=0.0,
        frames=9,
    ), saved


def test_every_number_is_saved_as_soon_as_it_is_there(check):
    check, saved = check
    found = bench.run(check)
    tensorrt = found["backends"]["tensorrt"]
    assert list(tensorrt["predict"]) == ["1", "2", "8", "32"]
    assert tensorrt["predict"]["8"]["device_ms"] == 1.0
    assert tensorrt["predict"]["8"]["copies_ms"] == 0.2
    assert tensorrt["predict"]["32"] == {"failed": "out of memory; lower the batch size"}
    assert list(tensorrt["decoder"]) == ["1"]
    assert tensorrt["parity"].keys() == load_bundle("sky-tiny").manifest.graphs.keys()
    assert tensorrt["end_to_end"]["frames"] == 9
    assert found["backends"]["tensorrt-rtx"] == {"problem": "no such GPU"}
    assert [target["backend"] for target in found["targets"]] == ["tensorrt"] * 3
    assert len(saved) > 10
    assert saved[-1] == json.loads(json.dumps(found))


def fail(*_):
    raise TypeError("incompatible arguments\nof a binding")


FAILED = "TypeError: incompatible arguments"


@pytest.mark.parametrize(
    ("where", "name", "lost"),
    [
        (bench, "backend_report", {"problem"}),
        (bench, "build_plans", {"build_seconds"}),
        (bench, "check_reference", {"parity"}),
        (bench, "end_to_end", {"end_to_end"}),
        (StubSession, "__init__", {"parity", "predict", "decoder", "end_to_end"}),
        (StubSession, "run", {"parity", "predict", "decoder", "end_to_end"}),
        (StubSession, "device_seconds", {"predict", "decoder", "end_to_end"}),
        (StubSession, "close", {"parity", "end_to_end"}),
    ],
)
def test_one_failure_does_not_hide_the_rest(check, monkeypatch, where, name, lost):
    monkeypatch.setattr(where, name, fail)
    tensorrt = bench.run(check[0])["backends"]["tensorrt"]
    assert {key for key, value in tensorrt.items() if FAILED in str(value)} == lost
    assert len(tensorrt) == {"backend_report": 1, "build_plans": 2}.get(name, 6)


def test_a_variant_of_torch_that_fails_leaves_the_others_and_is_let_go_of(check, monkeypatch):
    released = []

    def variant(module, name, device):
        return fail() if name == "one" else module

    monkeypatch.setattr(bench.yardstick, "variant", variant)
    monkeypatch.setattr(bench.yardstick, "time_module", lambda *_: 5.0)
    monkeypatch.setattr(bench.yardstick, "release", released.append)
    check = replace(check[0], backends=(), batches=(1,), variants=("one", "two"))
    torch = bench.run(check)["torch"]
    assert torch["one"]["predict"]["1"]["failed"] == FAILED
    assert torch["two"]["decoder"] == {"1": 5.0}
    assert released == ["cpu"] * 4


def test_the_devices_time_of_a_video_is_that_of_its_runs_by_shape(monkeypatch):
    monkeypatch.setattr(
        StubSession, "device_seconds", lambda self, feeds, _: 0.5 * len(feeds["latents"])
    )
    source = load_bundle("sky-tiny").graph("decoder")
    watched = Watched(StubSession(source), Busy())
    rows = np.ones((4, *source.facts.inputs[0].shape[1:]), np.float32)
    watched.run({"latents": rows})
    watched.restart()  # after the first video
    for n in (1, 2, 1, 1):
        watched.run({"latents": rows[:n]})
    assert watched.device_seconds() == 3 * 0.5 + 1.0


def test_a_session_that_cannot_time_the_device_says_so():
    with opening.open_session(load_bundle("sky-tiny"), "decoder", "cpu") as session:
        assert Watched(session, Busy()).device_seconds() is None


def test_without_a_gpu_the_command_says_so_and_writes_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_command, "driver_problem", lambda: "no NVIDIA driver")
    assert cli.run(["gpu-check", "-o", str(tmp_path / "out")]) == 1
    told = "needs an NVIDIA GPU, and nothing was measured: no NVIDIA driver"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["gpu-check.json", "gpu-check.md"])
def test_an_earlier_report_is_replaced_by_force_only(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "run", Mock(side_effect=OptionsError("at work")))
    (tmp_path / name).write_text("mine")
    words = ["gpu-check", "--dry-run", "-o", str(tmp_path)]
    assert cli.run(words) == 1
    assert f"{name}: it exists; --force replaces it" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
    assert cli.run([*words, "--force"]) == 1
    assert "at work" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert cli.run(["gpu-check", "--dry-run", "--no-torch", "-o", str(out)]) == 1
    assert "cannot be written: Not a directory; choose another name" in capsys.readouterr().err


def test_a_check_that_shows_nothing_is_saved_whole_and_exits_with_1(
    check, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(StubSession, "device_seconds", fail)
    options = ["--dry-run", "--no-torch", "--seconds", "0", "--backend", "tensorrt"]
    assert cli.run(["gpu-check", *options, "-o", str(tmp_path)]) == 1
    assert "tensorrt fails at predict, decoder" in capsys.readouterr().err
    assert FAILED in (tmp_path / "gpu-check.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"gpu-check.md", "gpu-check.json"}


@pytest.mark.exhaustive
def test_a_dry_run_goes_through_everything_on_the_cpu(tmp_path):
    options = ["--dry-run", "--backend", "cpu", "--seconds", "0", "--frames", "9"]
    done = CliRunner().invoke(gpu_command.command, [*options, "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    cpu = found["backends"]["cpu"]
    assert cpu["parity"]["decoder"]["most"] < 1e-4
    assert cpu["predict"]["2"]["ms"] > 0
    assert cpu["end_to_end"]["frames"] == 9
    assert (tmp_path / "gpu-check.md").read_text() == page(found)
