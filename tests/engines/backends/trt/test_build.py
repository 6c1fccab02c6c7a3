"""Compiling bundles and finding the right plan again."""

import dataclasses
import json
import signal
import threading
import time

import msgspec
import pytest
from msgspec.structs import replace

from lvdm_engines.backends.plan_facts import PlanFacts, PlanOptions, Range
from lvdm_engines.backends.trt.build import build_plans, check_build, stored_plans
from lvdm_engines.backends.trt.library import TargetMachine
from lvdm_engines.backends.trt.profiles import profiles_for, split
from lvdm_engines.backends.trt.store import find_plan, plans_of
from lvdm_engines.errors import BackendError, BundleError, ExportError, OptionsError

HERE = TargetMachine("tensorrt-rtx", "1.7.1.116", "NVIDIA RTX 6000", "8.9")
SMALL = PlanOptions(batch=Range(1, 2, 4))


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.fixture
def plan_here(rtx):
    return TargetMachine("tensorrt-rtx", rtx.__version__, "NVIDIA RTX 6000", "8.9")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1:8:32", Range(1, 8, 32)), ("4", Range(4, 4, 4)), ("2:2:2", Range(2, 2, 2))],
)
def test_a_range_is_read_from_text(text, expected):
    assert Range.parse(text) == expected


@pytest.mark.parametrize("text", ["", "0:1:2", "3:2:4", "1:5:4", "1:2", "a:b:c", "1:2:3:4", "-1"])
def test_an_impossible_range_is_refused_with_an_example(text):
    with pytest.raises(OptionsError, match=r"expected MIN:OPT:MAX .* such as 1:8:32"):
        Range.parse(text)


@pytest.mark.parametrize(
    ("wide", "parts"),
    [
        ("1:2:8", ["1:2:8"]),
        ("1:8:32", ["1:2:4", "5:8:16", "17:32:32"]),
        ("1:1:32", ["1:1:2", "3:32:32"]),
        ("1:32:32", ["1:4:16", "17:32:32"]),
        ("8:8:8", ["8:8:8"]),
    ],
)
def test_a_wide_range_is_cut_into_adjoining_parts_with_the_optimum_in_one(wide, parts):
    assert [str(part) for part in split(Range.parse(wide))] == parts


def test_each_clip_length_gets_profiles_of_its_own(make_bundle):
    profiles = profiles_for(make_bundle().manifest, ["predict", "interpolate"], SMALL)
    assert profiles == (
        {"b": Range(1, 2, 4), "t": Range(4, 4, 4)},
        {"b": Range(1, 2, 4), "t": Range(5, 5, 5)},
    )


def test_a_bundle_compiles_and_an_equal_build_is_not_repeated(rtx, make_bundle):
    bundle = make_bundle()
    steps = []
    (built,) = build_plans(
        bundle, "tensorrt-rtx", SMALL, progress=lambda n, s: steps.append((n, s))
    )
    assert built.graphs == ("predict", "interpolate")
    assert built.plan.path.parent.parent == bundle.path / "engines"
    assert built.plan.read()
    assert {name for name, _ in steps} == {"denoiser.onnx"}
    assert all(0 <= step.done <= step.of for _, step in steps)
    (again,) = build_plans(bundle, "tensorrt-rtx", SMALL)
    assert again.reused
    assert again.plan == built.plan


def test_weights_beside_the_graph_are_compiled_in(rtx, make_bundle):
    (built,) = build_plans(make_bundle(external=True), "tensorrt-rtx", SMALL)
    assert built.plan.facts.fingerprint.data_sha256 is not None


def test_the_sidecar_holds_the_whole_fingerprint(rtx, make_bundle):
    (built,) = build_plans(make_bundle(), "tensorrt-rtx", SMALL)
    told = json.loads(built.plan.path.with_name("denoiser.plan.json").read_text())
    assert told["sha256"] == built.plan.facts.sha256
    assert told["fingerprint"]["version"] == rtx.__version__
    assert told["fingerprint"]["profiles"][1]["t"] == [5, 5, 5]
    assert told["fingerprint"]["options"]["tf32"] is True
    assert msgspec.json.decode(json.dumps(told), type=PlanFacts) == built.plan.facts


def test_other_options_make_another_plan_and_keep_the_first(rtx, make_bundle):
    bundle = make_bundle()
    build_plans(bundle, "tensorrt-rtx", SMALL)
    for options in (
        replace(SMALL, tf32=False),
        replace(SMALL, targets=("8.6", "12.0")),
        replace(SMALL, level=1),
    ):
        (built,) = build_plans(bundle, "tensorrt-rtx", options)
        assert not built.reused
    assert len(stored_plans(bundle)["predict"]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (replace(SMALL, version_compatible=True), "has no version-compatible plans"),
        (
            replace(SMALL, targets=("9.0",)),
            r"got target '9\.0', expected .* 8\.0, 8\.6, 8\.9, 12\.0",
        ),
    ],
)
def test_what_rtx_cannot_do_is_said_before_the_build(
    rtx, make_bundle, options, message, monkeypatch
):
    monkeypatch.setattr("lvdm_engines.backends.trt.compile.gpus", list)
    with pytest.raises(BackendError, match=message):
        build_plans(make_bundle(), "tensorrt-rtx", options)
    with pytest.raises(BackendError, match=message):
        check_build("tensorrt-rtx", options)


def test_whether_a_build_could_start_is_known_before_the_export(rtx, monkeypatch):
    monkeypatch.setattr("lvdm_engines.backends.trt.compile.gpus", list)
    check_build("cpu")
    check_build("tensorrt-rtx", SMALL)
    with pytest.raises(BackendError, match="refittable plans only where there is a GPU"):
        check_build("tensorrt-rtx", replace(SMALL, refit=True))


def test_plans_for_other_gpus_can_be_built_beside_one_that_rtx_does_not_know(rtx, monkeypatch):
    from lvdm_engines.backends.gpu.driver import Gpu
    from lvdm_engines.backends.trt import build as plans
    from lvdm_engines.backends.trt import compile as trt_build
    from lvdm_engines.backends.trt import library as libraries

    def there(name, capability):
        for module in (libraries, plans, trt_build):
            monkeypatch.setattr(module, "gpus", lambda: [Gpu(name, capability, 1, 1, "CUDA 13.0")])

    there("NVIDIA H100", "9.0")
    check_build("tensorrt-rtx", replace(SMALL, targets=("8.9",)))
    there("NVIDIA T4", "7.5")
    check_build("tensorrt-rtx", replace(SMALL, targets=("7.5",)))
    with pytest.raises(BackendError, match=r"give --target 7\.5, and a bundle exported with"):
        check_build("tensorrt-rtx", SMALL)


def test_a_library_or_a_gpu_that_is_too_old_is_refused_before_the_export(fake_library, monkeypatch):
    from lvdm_engines.backends.gpu.driver import Gpu
    from lvdm_engines.backends.trt import build as plans
    from lvdm_engines.backends.trt import library as libraries

    monkeypatch.setattr(libraries, "load_library", lambda name: fake_library)
    volta = Gpu("NVIDIA V100", "7.0", 1, 1, "CUDA 12.9")
    for module in (libraries, plans):
        monkeypatch.setattr(module, "gpus", lambda: [volta])
    with pytest.raises(BackendError, match=r"needs compute capability 7\.5 or newer, got 7\.0"):
        check_build("tensorrt", SMALL)
    old = dataclasses.replace(fake_library, version="10.11.0.33")
    monkeypatch.setattr(libraries, "load_library", lambda name: old)
    with pytest.raises(BackendError, match=r"got version 10\.11\.0\.33, expected 10\.12 or newer"):
        check_build("tensorrt", SMALL)


def test_a_portable_plan_is_for_the_gpus_it_was_compiled_for(rtx, make_bundle, monkeypatch):
    monkeypatch.setattr("lvdm_engines.backends.trt.compile.gpus", list)
    bundle = make_bundle()
    source, ada = (
        bundle.graph("predict"),
        TargetMachine("tensorrt-rtx", rtx.__version__, "RTX 6000", "8.9"),
    )
    (fitting,) = build_plans(bundle, "tensorrt-rtx", replace(SMALL, targets=("8.9",)))
    (newer,) = build_plans(bundle, "tensorrt-rtx", replace(SMALL, targets=("8.6",)))
    assert newer.plan.path != fitting.plan.path
    assert find_plan(source, ada).path == fitting.plan.path
    blackwell = dataclasses.replace(ada, capability="12.0")
    with pytest.raises(BackendError) as caught:
        find_plan(source, blackwell)
    assert "compute capability: got 8.6 in the plan, expected 12.0; build again" in str(
        caught.value
    )
    assert str(caught.value).endswith("--target 8.6 --target 12.0")


def test_turing_must_be_asked_for(rtx, make_bundle, monkeypatch):
    monkeypatch.setattr("lvdm_engines.backends.trt.compile.gpus", list)
    bundle = make_bundle()
    build_plans(bundle, "tensorrt-rtx", SMALL)
    turing = TargetMachine("tensorrt-rtx", rtx.__version__, "NVIDIA T4", "7.5")
    with pytest.raises(
        BackendError, match=r"the library's own targets.*expected 7\.5.*--target 7\.5$"
    ):
        find_plan(bundle.graph("predict"), turing)


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_backends_that_run_onnx_have_nothing_to_compile(make_bundle, backend):
    assert build_plans(make_bundle(), backend) == []


def test_an_unknown_backend_is_refused(make_bundle):
    with pytest.raises(BackendError, match="expected tensorrt, tensorrt-rtx"):
        build_plans(make_bundle(), "gpu")


def test_a_file_that_is_no_graph_is_one_line(rtx, make_bundle):
    from lvdm_engines.backends.trt.compile import CompileJob, compile_plan
    from lvdm_engines.backends.trt.library import load_library

    bundle = make_bundle()
    facts = bundle.manifest.graphs["predict"]
    path = bundle.path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(
        ExportError, match=r"^predict: tensorrt-rtx .* cannot read broken"
    ) as caught:
        compile_plan(CompileJob("predict", path, facts, (), SMALL), load_library("tensorrt-rtx"))
    assert "\n" not in str(caught.value)


def test_an_interrupt_ends_the_build_and_leaves_nothing(rtx, make_bundle):
    bundle = make_bundle()

    def interrupt(name, step):
        if step.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plans(bundle, "tensorrt-rtx", SMALL, progress=interrupt)
    assert not list(bundle.path.glob("engines/**/*.plan"))


def test_a_signal_ends_the_build_whoever_is_running(rtx, make_bundle):
    bundle = make_bundle()
    sent = threading.Event()

    def interrupt(name, step):
        if not sent.is_set():
            sent.set()
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)  # until the main thread has noticed

    with pytest.raises(KeyboardInterrupt):
        build_plans(bundle, "tensorrt-rtx", SMALL, progress=interrupt)
    assert not list(bundle.path.glob("engines/**/*.plan"))


def test_builds_in_two_threads_do_not_disturb_each_other(rtx, make_bundle):
    bundles = [make_bundle("one"), make_bundle("two")]
    threads = [
        threading.Thread(target=build_plans, args=(bundle, "tensorrt-rtx", SMALL))
        for bundle in bundles
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(plans_of(bundle.graph("predict")) for bundle in bundles)


def test_a_plan_that_fits_is_found_by_both_graphs_of_its_file(rtx, make_bundle, plan_here):
    bundle = make_bundle()
    (built,) = build_plans(bundle, "tensorrt-rtx", SMALL)
    for name in ("predict", "interpolate"):
        assert find_plan(bundle.graph(name), plan_here) == built.plan


def test_without_a_plan_the_message_is_the_command_that_makes_one(make_bundle):
    bundle = make_bundle()
    with pytest.raises(BackendError) as caught:
        find_plan(bundle.graph("predict"), HERE)
    command = f"lvdm-export build-engines --bundle {bundle.path} --backend tensorrt-rtx"
    assert str(caught.value).endswith(f"build one: {command}")


def test_a_sidecar_that_cannot_be_read_is_passed_over(rtx, make_bundle):
    bundle = make_bundle()
    (built,) = build_plans(bundle, "tensorrt-rtx", SMALL)
    built.plan.path.with_name("denoiser.plan.json").write_text("{")
    assert stored_plans(bundle) == {"predict": [], "interpolate": []}
    assert built.plan.path.is_file()


def test_a_bundle_that_cannot_be_written_is_one_line(rtx, make_bundle):
    bundle = make_bundle()
    (bundle.path / "engines").write_text("in the way")
    with pytest.raises(BundleError, match=r"cannot be written .*copy the bundle"):
        build_plans(bundle, "tensorrt-rtx", SMALL)
