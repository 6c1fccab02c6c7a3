"""The command line: exit codes, one line per problem, and what is missing."""

import re
import subprocess
import sys

import pytest
from msgspec.structs import replace

from lvdm_engines.bundle import Bundle
from lvdm_engines.manifest import ShortFacts
from lvdm_export import cli
from lvdm_export.verify import parity as verify


def run(capsys, *arguments):
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_verify_and_inspect_of_a_good_bundle_exit_0(bundle, capsys):
    code, out, err = run(capsys, "verify", bundle.path)
    assert code == 0
    assert re.search(r"predict: ok, max_rel", out)
    assert "predict: running on cpu" in err
    code, out, _ = run(capsys, "inspect", bundle.path)
    assert code == 0
    assert "GFLOP" in out


def test_inspect_as_json_lists_plans(bundle, capsys, monkeypatch):
    import json

    from lvdm_engines.backends.plan_facts import Fingerprint, PlanFacts, PlanOptions
    from lvdm_engines.backends.trt.store import CompiledPlan

    made = Fingerprint(
        graph="denoiser",
        library="tensorrt",
        version="11.4.0.106",
        gpu="NVIDIA H100",
        capability="9.0",
        onnx_sha256="0" * 64,
        data_sha256=None,
        precision="fp16",
        profiles=(),
        options=PlanOptions(),
    )
    facts = PlanFacts(
        file="denoiser.plan",
        sha256="1" * 64,
        bytes=7,
        fingerprint=made,
        seconds=2.5,
        built_at="2026-01-01T00:00:00+00:00",
    )
    plans = {"predict": [CompiledPlan(bundle.path / "engines" / "a" / "denoiser.plan", facts)]}
    monkeypatch.setattr("lvdm_export.inspection.stored_plans", lambda _: plans)
    _, out, _ = run(capsys, "inspect", bundle.path, "--json")
    (told,) = json.loads(out)["plans"]["predict"]
    assert told["path"].endswith("engines/a/denoiser.plan")
    assert told["fingerprint"]["gpu"] == "NVIDIA H100"


def test_impossible_compilation_is_refused_before_the_export(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    wanted = ["--backend", "tensorrt-rtx", "--target", "1.0", "--out", tmp_path / "b"]
    code, _, err = run(capsys, "build-engines", "--predict", "no.yaml", "no.ckpt", *wanted)
    assert code == 1
    assert "got target '1.0', expected compute capabilities out of" in err


def test_json_reports_are_json_and_nothing_else(bundle, capsys):
    import json

    for verb in ("verify", "inspect"):
        _, out, _ = run(capsys, verb, bundle.path, "--json")
        assert json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build-engines"], "give at least one of --predict"),
        (["build-engines", "--predict", "a", "b"], "give the directory to write with --out"),
        (["build-engines", "--predict", "a"], "requires 2 arguments"),
        (["build-engines", "--bundle", "x", "--out", "y"], "--bundle compiles what is there"),
        (["build-engines", "--bundle", "x"], "--bundle needs --backend"),
        (["build-engines", "--bundle", "x", "--refit-from", "y"], "--refit-from needs --backend"),
        (
            ["build-engines", "--text", "a", "b", "--short", "a", "b", "--out", "c"],
            "--text and --short",
        ),
        (["build-engines", "--precision", "int8"], "int8"),
        (["verify", "x", "--reference", "y"], "--reference is for another --backend"),
        (["verify", "x", "--precision", "bf16"], "--precision bf16 is for --backend openvino"),
        (["build-engines", "--guidance", "nan"], "'nan' is not a number"),
        (["build-engines", "--guidance", "1001"], "is not in the range 0<=x<=1000"),
        (["build-engines", "--eta", "nan"], "'nan' is not a number"),
        (["build-engines", "--fps", "nan"], "'nan' is not a number"),
        (["build-engines", "--noise-level", "9" * 400], "is not in the range -1<=x<=1048576"),
        (["build-engines", "--decode-window", "9" * 400], "is not in the range 1<=x<=4096"),
        (["frobnicate"], "No such command"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(capsys, arguments, message):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err


def test_bad_input_exits_1_with_one_line(official, tmp_path, capsys):
    out = tmp_path / "out"
    truncated = tmp_path / "cut.ckpt"
    truncated.write_bytes(official.checkpoint.read_bytes()[:5000])
    for config, checkpoint, message in (
        (tmp_path / "none.yaml", official.checkpoint, "cannot read the config"),
        (official.config, tmp_path / "none.ckpt", "there is no checkpoint"),
        (official.config, truncated, "is cut off"),
        (official.checkpoint, official.checkpoint, "is not YAML"),
        (official.config, official.config, "not a PyTorch checkpoint"),
    ):
        code, _, err = run(capsys, "build-engines", "--predict", config, checkpoint, "--out", out)
        assert code == 1
        lines = err.strip().splitlines()
        assert lines[-1].startswith("lvdm-export: ")
        assert message in lines[-1]
        assert "Traceback" not in err
        assert not out.exists()


def test_an_unwritable_place_is_refused_before_any_work(official, tmp_path, capsys):
    (tmp_path / "file").write_text("not a directory")
    arguments = ["build-engines", "--predict", official.config, official.checkpoint, "--out"]
    code, _, err = run(capsys, *arguments, tmp_path / "file" / "bundle")
    assert code == 1
    assert "reading weights" not in err
    code, _, err = run(capsys, *arguments, tmp_path / "file", "--force")
    assert code == 1
    assert "is not a bundle" in err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_running_out_of_memory_is_one_line(bundle, capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(verify, "verify_bundle", fail)
    code, _, err = run(capsys, "verify", bundle.path)
    assert code == 1
    assert err == "lvdm-export: out of memory; close other programs or export on a larger machine\n"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch", "yaml", "safetensors", "onnx"])
def test_a_missing_extra_is_one_line_that_says_what_to_install(module, tmp_path):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from lvdm_export import cli\n"
        "sys.exit(cli.run(['build-engines', '--predict', 'a.yaml', 'b.ckpt', '--out', 'c']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"lvdm-export: {module} is not installed; pip install 'lvdm-rt[export]'"
    )
    assert "Traceback" not in done.stderr


def test_help_is_quick_because_torch_is_not_imported():
    code = (
        "import sys, lvdm_export.cli as cli\n"
        "cli.run(['build-engines', '--help'])\n"
        "print({'torch', 'onnx', 'onnxruntime'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_finished_bundle_says_how_to_use_it_unless_quiet(bundle, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_export", lambda *_: bundle)
    command = ["build-engines", "--predict", "a", "b", "--out", "my bundle"]
    _, _, err = run(capsys, *command)
    assert err.endswith("next: lvdm-rt generate --bundle './my bundle' -o out.mp4\n")
    _, _, err = run(capsys, *command, "--quiet")
    assert err == ""


def test_a_bundle_that_makes_one_clip_is_used_with_as_many_frames(bundle, capsys, monkeypatch):
    model = replace(bundle.manifest.model, predict=None, interpolate=None, short=ShortFacts(4))
    graphs = {name: bundle.manifest.graphs[name] for name in ("encoder", "decoder")}
    made = Bundle(bundle.path, replace(bundle.manifest, model=model, graphs=graphs))
    monkeypatch.setattr(cli, "_export", lambda *_: made)
    _, _, err = run(capsys, "build-engines", "--short", "a", "b", "--out", "c")
    assert err == "next: lvdm-rt generate --bundle ./c --frames 8 -o out.mp4\n"
