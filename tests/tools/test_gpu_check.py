"""`lvdm-tools gpu-check` without a GPU: what it measures on fakes, what it says, what it leaves."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from lvdm_engines.errors import BackendError, DeviceMemoryError, ExportError
from lvdm_engines.manifest import TensorSpec
from lvdm_tools import cli, gpu_check, gpu_check_command
from lvdm_tools.gpu_check import Check
from lvdm_tools.gpu_check_end import Busy
from lvdm_tools.gpu_check_table import host_share, judge, page

GPU = {
    "name": "NVIDIA H100",
    "capability": "9.0",
    "total": 80 << 30,
    "free": 1,
    "driver": "CUDA 13",
}


@pytest.fixture
def found():
    return {
        "model": "sky",
        "precision": "fp16",
        "gpu": GPU,
        "machine": "Linux",
        "when": "2026-01-01",
        "packages": {"tensorrt": "11.4"},
        "peak_tflops": 700.0,
        "gflop": {"predict": 290.0, "decoder": 2850.0},
        "torch": {
            "torch eager fp32": {"predict": {"8": 60.0}, "decoder": {"1": 40.0}},
            "torch.compile fp16": {
                "predict": {"8": 12.0, "32": {"failed": "CUDA out of | memory"}},
                "decoder": {"1": 20.0},
            },
        },
        "backends": {
            "tensorrt": {
                "problem": None,
                "build_seconds": 200.0,
                "parity": {"predict": {"most": 0.004}},
                "predict": {
                    "8": {"ms": 8.0, "device_ms": 7.9},
                    "32": {"ms": 30.0, "device_ms": 29.0},
                },
                "decoder": {"1": {"ms": 14.0, "device_ms": 13.9}},
                "end_to_end": {"frames_per_second": 12.5, "outside_sessions": 0.02},
            },
            "tensorrt-rtx": {"problem": "does not list compute capability 9.0"},
        },
        "targets": [],
    }


def test_the_targets_are_judged_on_what_was_measured(found):
    denoiser, decoder, host = judge(found)
    assert denoiser["met"] is True
    assert denoiser["got"] == "44.2% of peak, 1.50× the best PyTorch"
    assert (decoder["met"], decoder["got"]) == (True, "1.43× the best PyTorch")
    assert (host["met"], host["got"]) == (True, "3.2%")


def test_a_slow_denoiser_misses_its_target(found):
    found["backends"]["tensorrt"]["predict"] = {"8": {"ms": 11.0}}
    assert [target["met"] for target in judge(found)] == [False, True, None]


def test_what_was_never_measured_is_neither_met_nor_missed(found):
    found["backends"]["tensorrt"] = {"problem": None}
    assert [target["met"] for target in judge(found)] == [None, None, None]
    assert host_share({}) is None


def test_the_page_shows_numbers_failures_and_what_never_ran(found):
    found["targets"] = judge(found)
    text = page(found)
    assert text.startswith("# GPU check: `sky` fp16 on NVIDIA H100\n")
    assert "| tensorrt | works here | 200.0 s | predict 0.004 |" in text
    assert "| tensorrt-rtx | never run: does not list compute capability 9.0 |" in text
    assert "| tensorrt | 8.00 (41% of peak) | 30.00 (44% of peak) |" in text
    assert "| torch.compile fp16 | 12.00 | failed: CUDA out of / memory |" in text
    assert "| tensorrt-rtx | never run | never run |" in text
    assert "| tensorrt | 12.50 | 3.2% |" in text


def test_a_dry_run_never_looks_like_a_gpu(found):
    found |= {"gpu": None, "backends": {"cpu": {"problem": None}}, "targets": []}
    text = page(found)
    assert "on a CPU, as a dry run: no number here is a GPU's" in text
    assert "% of peak" not in text
    assert "| none | no TensorRT backend ran here |  | never measured |" in text


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

    def close(self):
        FakeSession.closed += 1


@pytest.fixture
def check(tmp_path, monkeypatch):
    """A check of two backends, one usable, with everything heavy replaced."""
    saved = []
    bundle = SimpleNamespace(manifest=SimpleNamespace(model=None, graphs={}))
    fakes = {
        "bundle_of": lambda *_: bundle,
        "_gflop": lambda *_: {"predict": 290.0, "decoder": 2850.0},
        "backend_report": lambda: {"tensorrt": None, "tensorrt-rtx": "no such GPU", "cuda": None},
        "build_plans": lambda *_: [],
        "compare_bundle": lambda *_: {"predict": {"most": 0.001}},
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
    assert tensorrt["predict"]["32"] == {"failed": "predict: out of memory; lower the batch size"}
    assert list(tensorrt["decoder"]) == ["1"]
    assert found["backends"]["tensorrt-rtx"] == {"problem": "no such GPU"}
    assert len(check.saved) > 8
    assert check.saved[-1] == json.loads(json.dumps(found))
    assert [target["backend"] for target in found["targets"]] == ["tensorrt"] * 3


@pytest.mark.parametrize(
    ("name", "error"), [("build_plans", BackendError("no")), ("compare_bundle", ExportError("far"))]
)
def test_one_failure_does_not_hide_the_rest(check, name, error):
    def fail(*_):
        raise error

    check.patch.setattr(gpu_check, name, fail)
    found = gpu_check.run(check.check)
    told = found["backends"]["tensorrt"]["build_seconds" if name == "build_plans" else "parity"]
    assert told == {"failed": str(error)}
    assert ("predict" in found["backends"]["tensorrt"]) == (name == "compare_bundle")


def test_sessions_are_closed_after_their_timings(check):
    FakeSession.closed = 0
    gpu_check.run(check.check)
    assert FakeSession.closed == 2


def test_the_report_is_written_whole(tmp_path):
    gpu_check.write({"a": 1}, tmp_path / "gpu-check.json")
    assert json.loads((tmp_path / "gpu-check.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["gpu-check.json"]


def test_time_is_counted_once_however_many_sessions_run():
    busy = Busy()
    with busy, busy:
        assert busy.seconds == 0
    assert busy.seconds > 0


def test_without_a_gpu_the_command_says_so_and_writes_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_check_command, "driver_problem", lambda: "no NVIDIA driver")
    assert cli.run(["gpu-check", "-o", str(tmp_path / "out")]) == 1
    assert (
        "needs an NVIDIA GPU, and nothing was measured: no NVIDIA driver" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


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
