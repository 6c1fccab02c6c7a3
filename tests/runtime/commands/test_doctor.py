import json
import re
from importlib import metadata

import pytest
from toy_files import edited

from lvdm_engines.bundle import load_bundle
from lvdm_rt.commands import doctor


def test_the_doctor_names_backends_threads_formats_and_bundles(command):
    code, out, err = command("doctor")
    assert (code, err) == (0, "")
    assert "CPU threads" in out
    assert re.search(r"backends    ok  .*cpu onnxruntime ", out)
    for name in ("onnxruntime", "tensorrt", "tensorrt-rtx", "cuda", "mp4", "webm", "y4m"):
        assert re.search(rf"\b{name}\b", out)


def test_what_does_not_work_comes_with_its_cure(command, monkeypatch):
    monkeypatch.setattr(
        doctor, "backend_report", lambda: {"tensorrt": "no driver; install one", "cpu": None}
    )
    monkeypatch.setattr(doctor, "missing_encoder", lambda kind: "no encoder; get one")
    code, out, _ = command("doctor")
    assert code == 1
    assert "--  tensorrt: no driver; install one" in out
    assert "formats     --  mp4: no encoder; get one" in out


@pytest.fixture
def packages(monkeypatch):
    """Pretend that only some packages are installed, and return what the doctor says of them."""

    def diagnose(versions):
        def version(package):
            if package not in versions:
                raise metadata.PackageNotFoundError(package)
            return versions[package]

        monkeypatch.setattr(metadata, "version", version)
        return {check.name: check for check in doctor.diagnose().packages}

    return diagnose


BOTH = (
    "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 overwrite each other; pip uninstall -y "
    "onnxruntime onnxruntime-gpu && pip install 'lvdm-rt[cuda]' (or [cpu])"
)


@pytest.mark.parametrize(
    ("versions", "told", "problem"),
    [
        ({"onnxruntime-gpu": "1.31.1"}, "onnxruntime-gpu 1.31.1", None),
        ({}, None, "not installed; pip install 'lvdm-rt[cpu]', or [cuda] for NVIDIA GPUs"),
        ({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, "1.32.0", BOTH),
    ],
)
def test_either_wheel_of_onnxruntime_will_do_but_not_both(packages, versions, told, problem):
    found = packages(versions)
    assert (found["onnxruntime"].version, found["onnxruntime"].problem) == (told, problem)
    assert found["numpy"].problem == "not installed; pip install numpy"


def test_the_findings_come_as_json(command):
    code, out, _ = command("doctor", "--json")
    found = json.loads(out)
    cpu = next(check for check in found["backends"] if check["name"] == "cpu")
    assert code == 0
    assert cpu["version"].startswith("onnxruntime")
    assert "problem" not in cpu
    assert found["cpu_threads"] >= 1


def test_a_damaged_builtin_bundle_is_found(monkeypatch, toy, make_bundle):
    broken = make_bundle()
    (broken / "predict.onnx").write_bytes(b"damaged")
    bundles = {"good": toy, "broken": broken}
    monkeypatch.setattr(doctor, "builtin_bundles", lambda: bundles)
    monkeypatch.setattr(doctor, "load_bundle", lambda name: load_bundle(bundles[name]))
    good, damaged = doctor.diagnose().bundles
    assert good.problem is None
    assert "the file is damaged or was replaced" in str(damaged.problem)


def test_info_shows_the_facts_of_a_bundle(command, toy):
    code, out, err = command("info", toy)
    assert (code, err) == (0, "")
    for fact in ("toy: 16×16 pixels, 8 frames per second", "2×2×2 for 4 frames", "ddim, 5 steps"):
        assert fact in out
    for graph in ("encoder", "decoder", "predict", "interpolate"):
        assert re.search(rf"{graph}\.onnx .* MB  fp32 .* {graph}\n", out)


@pytest.mark.parametrize("arguments", [["info"], ["doctor"]])
def test_what_people_read_fits_one_screen(command, arguments):
    _, out, _ = command(*arguments)
    lines = out.splitlines()
    place = f"  {load_bundle('sky-tiny').path}"  # as long as the place of this installation is
    assert max(len(line) for line in lines if line != place) <= 80
    assert len(lines) <= 24


def test_info_prints_the_manifest_as_json(command, toy):
    code, out, _ = command("info", toy, "--json")
    assert code == 0
    assert json.loads(out)["model"]["frame_size"] == [16, 16]


def test_info_shows_whatever_numbers_a_manifest_claims_as_plain_text(command, make_bundle):
    bundle = make_bundle()
    with edited(bundle / "manifest.json") as manifest:
        manifest["quality"] = {"psnr": "\x1b]0;taken\x07" + "9" * 10**6}
        manifest["parity"] = {graph: {"max_rel": 10**400} for graph in manifest["graphs"]}
    code, out, err = command("info", bundle)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert len(out) < 6000
    assert " unknown " in out


def test_info_refuses_a_bundle_whose_files_were_changed(command, make_bundle):
    bundle = make_bundle()
    (bundle / "decoder.onnx").write_bytes(b"damaged")
    code, out, err = command("info", bundle)
    assert (code, out) == (1, "")
    assert "decoder.onnx: got sha256" in err
    assert len(err.splitlines()) == 1
