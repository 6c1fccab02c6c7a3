"""Which of several plans is taken, and what is said of those that are not."""

import logging
import os
import shlex
import threading
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from toy_gpu import HERE, PROFILES, SMALL

from lvdm_engines.atomic import read_file
from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.backends.plan_facts import Range, rebuild_command
from lvdm_engines.backends.trt import library as libraries
from lvdm_engines.backends.trt import opening as trt
from lvdm_engines.backends.trt import store
from lvdm_engines.backends.trt.build import build_plans
from lvdm_engines.backends.trt.store import find_plan
from lvdm_engines.errors import BackendError, BundleError

LATER = "2026-02-02T00:00:00+00:00"


def test_of_two_plans_that_fit_the_newest_is_taken_or_the_one_that_is_asked_for(source, make_plan):
    older = make_plan()
    newer = make_plan(built_at=LATER, options=replace(SMALL, tf32=False))
    assert find_plan(source, HERE) == newer
    assert find_plan(source, HERE, SMALL) == older


def test_a_plan_that_a_killed_build_left_hidden_is_not_taken(source, make_plan):
    plan = make_plan()
    plan.path.parent.rename(plan.path.parent.with_name(f".{plan.path.parent.name}.0.partial"))
    with pytest.raises(BackendError, match=r"^no plan of"):
        find_plan(source, HERE)


def test_the_old_plan_stays_until_the_new_one_is_whole(source, make_plan, monkeypatch):
    old = make_plan()

    def full(folder):
        assert find_plan(source, HERE).read() == old.read()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "sync", full)
    with pytest.raises(BundleError, match="cannot be written"):
        make_plan()
    assert [path.name for path in source.engines.iterdir()] == [old.path.parent.name]
    assert find_plan(source, HERE).read() == old.read()


def test_an_option_that_differs_is_named_and_the_command_asks_for_it(source, make_plan):
    make_plan()
    told = "option batch: got 1:2:4 in the plan, expected 1:2:8; option level: got 3 in the .*"
    with pytest.raises(BackendError, match=f"{told}--backend tensorrt --batch 1:2:8 --level 5$"):
        find_plan(source, HERE, replace(SMALL, level=5, batch=Range(1, 2, 8)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "11.3.0.1"}, r"library version: got 11\.3\.0\.1 in the plan, expected 11\.4"),
        ({"onnx_sha256": "f" * 64}, "ONNX file: got ffffffffffff… in the plan, expected "),
        ({"data_sha256": "e" * 64}, "ONNX weights: got eeeeeeeeeeee… in the plan, expected None"),
        ({"precision": "fp16"}, "precision: got fp16 in the plan, expected fp32"),
        ({"gpu": "NVIDIA L4"}, "GPU: got NVIDIA L4 in the plan, expected NVIDIA H100"),
        ({"capability": "8.9"}, r"compute capability: got 8\.9 in the plan, expected 9\.0"),
        ({"format": 0}, "plan format: got 0 in the plan, expected 1"),
        # before the bundle could infill
        ({"profiles": PROFILES[:1]}, r"profiles: got \(b 1:2:4, t 4:4:4\) in .*5:5:5"),
    ],
)
def test_a_stale_plan_is_kept_not_used_and_what_differs_is_named(
    source, make_plan, changes, message
):
    plan = make_plan(**changes)
    told = f"is kept but not used.*{message}.*--backend tensorrt --batch 1:2:4$"
    with pytest.raises(BackendError, match=told):
        find_plan(source, HERE)
    assert plan.path.is_file()


@pytest.mark.parametrize(
    ("made", "fits"),
    [("11.4.0.1", True), ("11.9.0.1", False), ("10.16.0.1", False), ("10.²", False)],
)
def test_a_version_compatible_plan_serves_later_libraries_of_its_major_version(
    source, make_plan, made, fits
):
    make_plan(version=made, options=replace(SMALL, version_compatible=True))
    if fits:
        assert find_plan(source, HERE)
        return
    with pytest.raises(BackendError, match=f"library version: got {made} in the plan"):
        find_plan(source, HERE)


def test_commands_can_be_pasted_into_a_shell_whatever_the_folder_is_called():
    command = rebuild_command("my bundle; rm -r ~", "tensorrt", SMALL)
    assert shlex.split(command)[2:4] == ["--bundle", "my bundle; rm -r ~"]


def test_a_damaged_plan_says_how_to_replace_it(source, make_plan):
    plan = make_plan()
    plan.path.write_bytes(b"another!")
    with pytest.raises(BundleError, match=r"got sha256 .* build again: .* --batch 1:2:4 --force$"):
        plan.read()
    plan.path.unlink()
    with pytest.raises(BundleError, match=r"cannot be read: No such file"):
        plan.read()


def test_a_plan_swapped_while_it_is_read_is_never_used(source, make_plan, monkeypatch):
    plan = make_plan()

    def swapped(path):
        data = read_file(path)
        path.write_bytes(b"another!")  # after the bytes were read, before they are used
        return data

    monkeypatch.setattr("lvdm_engines.backends.trt.store.read_file", swapped)
    assert plan.read() == b"the plan"
    with pytest.raises(BundleError, match="got sha256"):
        plan.read()


def test_whether_a_plan_is_there_is_asked_of_the_gpu_that_will_run_it(
    source, make_plan, installed, set_gpus
):
    make_plan()
    set_gpus(("NVIDIA L4", HERE.capability), (HERE.gpu, HERE.capability))
    opener = trt.TENSORRT.opener
    opener(source, SessionOptions(device=1))
    with pytest.raises(BackendError, match="GPU: got NVIDIA H100"):
        opener(source, SessionOptions(device=0))
    with pytest.raises(BackendError, match="option level: got 3"):
        opener(source, SessionOptions(device=1, plan=replace(SMALL, level=5)))


def test_without_a_plan_the_message_is_the_command_that_makes_one(source):
    command = f"lvdm-export build-engines --bundle {source.folder} --backend tensorrt"
    with pytest.raises(BackendError, match=f"build one: {command}$"):
        find_plan(source, HERE)


@pytest.fixture
def compiler(monkeypatch, installed, fake_library, set_gpus):
    """A library that compiles anything to the same bytes on one of two GPUs; those activated."""
    activated = []

    def open_device(index):
        thread = threading.current_thread
        return SimpleNamespace(activate=lambda: activated.append((index, thread().name)))

    def compile_graph(job, library, monitor, activate):
        if activate is not None:
            activate()
        return b"compiled"

    set_gpus(*[(HERE.gpu, HERE.capability)] * 2)
    monkeypatch.setattr("lvdm_engines.backends.trt.build.CudaDevice", open_device)
    monkeypatch.setattr("lvdm_engines.backends.trt.compile._compile", compile_graph)
    fake_library.trt.IProgressMonitor = type("IProgressMonitor", (), {})
    return activated


def test_a_plan_is_built_on_the_gpu_that_was_chosen_in_the_thread_that_builds(
    make_bundle, compiler
):
    (built,) = build_plans(make_bundle(), "tensorrt", SMALL, device=1)
    assert built.plan.read() == b"compiled"
    index, thread = compiler[0]
    assert (index, thread.startswith("build")) == (1, True)


def test_another_gpu_than_the_first_needs_the_package_that_chooses_it(
    make_bundle, compiler, monkeypatch
):
    monkeypatch.setattr(libraries, "lacks_cuda", lambda name: "cuda-core is not installed; pip")
    with pytest.raises(BackendError, match="tensorrt: to build on GPU 1: cuda-core is not inst"):
        build_plans(make_bundle(), "tensorrt", SMALL, device=1)
    build_plans(make_bundle("other"), "tensorrt", SMALL)
    assert compiler == []


def test_an_equal_plan_is_kept_but_not_if_it_is_damaged(make_bundle, compiler, caplog):
    bundle = make_bundle()
    (first,) = build_plans(bundle, "tensorrt", SMALL)
    assert build_plans(bundle, "tensorrt", SMALL)[0].reused
    first.plan.path.write_bytes(b"damaged!")
    os.utime(first.plan.path, (1, 1))
    with caplog.at_level(logging.WARNING):
        (again,) = build_plans(bundle, "tensorrt", SMALL)
    assert not again.reused
    assert again.plan.read() == b"compiled"
    assert "it is built anew" in caplog.text
