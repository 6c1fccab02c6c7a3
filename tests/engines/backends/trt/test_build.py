"""Compiling bundles and finding the right plan again."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import msgspec
import pytest
from msgspec.structs import replace
from toy_gpu import SMALL

from lvdm_engines.backends.plan_facts import PlanFacts, PlanOptions, Range
from lvdm_engines.backends.trt.build import build_plans, check_build, stored_plans
from lvdm_engines.backends.trt.library import TargetMachine
from lvdm_engines.backends.trt.profiles import profiles_for
from lvdm_engines.backends.trt.store import find_plan
from lvdm_engines.errors import BackendError, BundleError, ExportError


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


def machine(rtx, capability="8.9"):
    return TargetMachine("tensorrt-rtx", rtx.__version__, "NVIDIA GPU", capability)


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
    sidecar = built.plan.path.with_name("denoiser.plan.json")
    assert msgspec.json.decode(sidecar.read_bytes(), type=PlanFacts) == built.plan.facts
    made = built.plan.facts.fingerprint
    assert (made.version, made.options, len(made.profiles)) == (rtx.__version__, SMALL, 2)
    (again,) = build_plans(bundle, "tensorrt-rtx", SMALL)
    assert again.reused
    assert again.plan == built.plan
    for name in built.graphs:
        assert find_plan(bundle.graph(name), machine(rtx)) == built.plan


def test_a_wide_batch_range_compiles_as_several_profiles(rtx, make_bundle):
    (built,) = build_plans(make_bundle(), "tensorrt-rtx", PlanOptions(batch=Range(1, 8, 32)))
    assert len(built.plan.facts.fingerprint.profiles) == 3 * 2  # for each clip length


def test_weights_beside_the_graph_are_compiled_in(rtx, make_bundle):
    (built,) = build_plans(make_bundle(external=True), "tensorrt-rtx", SMALL)
    assert built.plan.facts.fingerprint.data_sha256 is not None


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
    ("changes", "message"),
    [
        ({"version_compatible": True}, "has no version-compatible plans"),
        ({"targets": ("9.0",)}, r"got target '9\.0', expected .* 8\.0, 8\.6, 8\.9, 12\.0"),
        ({"refit": True}, "refittable plans only where there is a GPU"),
    ],
)
def test_what_rtx_cannot_do_is_said_before_the_build_and_before_an_export(
    rtx, make_bundle, set_gpus, changes, message
):
    set_gpus()
    check_build("cpu")
    check_build("tensorrt-rtx", SMALL)
    with pytest.raises(BackendError, match=message):
        build_plans(make_bundle(), "tensorrt-rtx", replace(SMALL, **changes))
    with pytest.raises(BackendError, match=message):
        check_build("tensorrt-rtx", replace(SMALL, **changes))


def test_plans_for_other_gpus_can_be_built_beside_one_that_rtx_does_not_know(rtx, set_gpus):
    set_gpus(("NVIDIA H100", "9.0"))
    check_build("tensorrt-rtx", replace(SMALL, targets=("8.9",)))
    set_gpus(("NVIDIA T4", "7.5"))
    check_build("tensorrt-rtx", replace(SMALL, targets=("7.5",)))
    with pytest.raises(BackendError, match=r"give --target 7\.5, and a bundle exported with"):
        check_build("tensorrt-rtx", SMALL)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("11.4.0.106", r"needs compute capability 7\.5 or newer, got 7\.0"),
        ("10.11.0.33", r"got version 10\.11\.0\.33, expected 10\.12 or newer"),
    ],
)
def test_a_library_or_a_gpu_that_is_too_old_is_refused_before_the_export(
    installed, fake_library, set_gpus, version, message
):
    set_gpus(("NVIDIA V100", "7.0"))
    object.__setattr__(fake_library, "version", version)
    with pytest.raises(BackendError, match=message):
        check_build("tensorrt", SMALL)


def test_a_portable_plan_is_for_the_gpus_it_was_compiled_for(rtx, make_bundle, set_gpus):
    set_gpus()
    bundle = make_bundle()
    source = bundle.graph("predict")
    (fitting,) = build_plans(bundle, "tensorrt-rtx", replace(SMALL, targets=("8.9",)))
    (newer,) = build_plans(bundle, "tensorrt-rtx", replace(SMALL, targets=("8.6",)))
    assert newer.plan.path != fitting.plan.path
    assert find_plan(source, machine(rtx)).path == fitting.plan.path
    told = "compute capability: got 8.6 in the plan, expected 12.0; build again"
    with pytest.raises(BackendError, match=f"{told}.* --target 8.6 --target 12.0$"):
        find_plan(source, machine(rtx, "12.0"))


def test_turing_must_be_asked_for(rtx, make_bundle, set_gpus):
    set_gpus()
    bundle = make_bundle()
    build_plans(bundle, "tensorrt-rtx", SMALL)
    with pytest.raises(
        BackendError, match=r"the library's own targets.*expected 7\.5.*--target 7\.5$"
    ):
        find_plan(bundle.graph("predict"), machine(rtx, "7.5"))


@pytest.mark.parametrize("backend", ["cpu", "cuda", "openvino"])
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
    with pytest.raises(ExportError, match=r"^predict: tensorrt-rtx .* cannot read broken"):
        compile_plan(CompileJob("predict", path, facts, (), SMALL), load_library("tensorrt-rtx"))


def press_in_the_main_thread():
    signal.raise_signal(signal.SIGINT)
    time.sleep(0.05)  # until that has noticed


@pytest.mark.parametrize("stop", [Mock(side_effect=KeyboardInterrupt), press_in_the_main_thread])
def test_an_interrupt_ends_the_build_whoever_is_running_and_leaves_nothing(rtx, make_bundle, stop):
    bundle, begun = make_bundle(), []

    def interrupt(name, step):
        begun.append(step)
        if len(begun) == 3:
            stop()

    with pytest.raises(KeyboardInterrupt):
        build_plans(bundle, "tensorrt-rtx", SMALL, progress=interrupt)
    assert not list(bundle.path.glob("engines/**/*.plan"))


def test_builds_in_two_threads_do_not_disturb_each_other(rtx, make_bundle):
    bundles = [make_bundle("one"), make_bundle("two")]
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(lambda bundle: build_plans(bundle, "tensorrt-rtx", SMALL), bundles))
    assert all(plan.path.is_file() for (made,) in built for plan in [made.plan])


def test_a_sidecar_that_cannot_be_read_is_passed_over(rtx, make_bundle):
    bundle = make_bundle()
    (built,) = build_plans(bundle, "tensorrt-rtx", SMALL)
    built.plan.path.with_name("denoiser.plan.json").write_text("{")
    assert stored_plans(bundle) == {"predict": [], "interpolate": []}
    assert built.plan.path.is_file()


def test_a_bundle_that_cannot_be_written_is_one_line(rtx, make_bundle):
    bundle = make_bundle()
    (bundle.path / "engines").write_text("in the way")
    with pytest.raises(BundleError, match=r"cannot be written: .*copy the bundle"):
        build_plans(bundle, "tensorrt-rtx", SMALL)
