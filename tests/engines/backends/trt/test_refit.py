"""New weights in a plan that was compiled before."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from toy_gpu import SMALL

from lvdm_engines.backends.trt.build import check_refit, refit_plans
from lvdm_engines.bundle import load_bundle
from lvdm_engines.errors import BackendError, ExportError

OPTIONS = replace(SMALL, refit=True)


@pytest.fixture
def refitting(monkeypatch, installed, fake_library, runtimes, engine):
    """The fake library as one that can exchange weights; returns what it was asked."""
    asked = SimpleNamespace(files=[], fits=True, takes=True, flags=[])

    class Parser:
        num_errors = 1

        def __init__(self, refitter, logger):
            pass

        def refit_from_file(self, path):
            asked.files.append(path)
            return asked.fits

        def get_error(self, index):
            return SimpleNamespace(desc=lambda: "weight conv is missing")

    trt = fake_library.trt
    trt.Refitter = lambda engine, logger: SimpleNamespace(refit_cuda_engine=lambda: asked.takes)
    trt.OnnxParserRefitter = Parser
    trt.SerializationFlag = SimpleNamespace(INCLUDE_REFIT="include refit")
    engine.refittable = True
    engine.create_serialization_config = lambda: SimpleNamespace(set_flag=asked.flags.append)
    engine.serialize_with_config = lambda config: b"the plan with other weights"
    monkeypatch.setattr("lvdm_engines.backends.trt.build._activation", lambda library, device: None)
    return asked


@pytest.fixture
def bundles(make_bundle, make_plan, source):
    """A bundle with a refittable plan, and a later export of the same graph without any."""
    make_plan(options=OPTIONS, onnx_sha256=source.facts.sha256)
    return load_bundle(source.folder), make_bundle("later", external=True)


def test_a_later_export_gets_its_plan_by_new_weights_alone(bundles, refitting):
    former, later = bundles
    (built,) = refit_plans(later, former, "tensorrt", OPTIONS)
    assert refitting.files == [str(later.path / "denoiser.onnx")]
    assert refitting.flags == ["include refit"]  # so that it can be done again
    assert built.graphs == ("predict", "interpolate")
    assert built.plan.read() == b"the plan with other weights"
    made = built.plan.facts.fingerprint
    assert made.onnx_sha256 == later.manifest.graphs["predict"].sha256
    assert built.plan.path.is_relative_to(later.path)


def test_a_former_bundle_without_such_a_plan_is_refused(bundles, refitting):
    former, later = bundles
    with pytest.raises(BackendError, match="option level: got 3 in the plan, expected 5"):
        refit_plans(later, former, "tensorrt", replace(OPTIONS, level=5))


def test_a_plan_that_was_not_built_for_it_is_refused(bundles, refitting, engine):
    former, later = bundles
    engine.refittable = False
    with pytest.raises(BackendError, match=r"was not built with --refit; compile instead: lvdm-"):
        refit_plans(later, former, "tensorrt", OPTIONS)


def test_a_graph_that_differs_in_more_than_weights_says_what_and_what_to_do(bundles, refitting):
    former, later = bundles
    refitting.fits = False
    with pytest.raises(ExportError, match=r"do not fit .*: weight conv is missing; compile inst"):
        refit_plans(later, former, "tensorrt", OPTIONS)
    refitting.fits, refitting.takes = True, False
    with pytest.raises(ExportError, match=r"cannot take the weights .*; compile instead: lvdm-"):
        refit_plans(later, former, "tensorrt", OPTIONS)
    assert not list(later.path.glob("engines/*/*.plan"))


def test_a_plan_for_another_precision_cannot_take_the_weights(bundles, refitting):
    former, later = bundles
    graphs = {name: replace(g, precision="fp16") for name, g in later.manifest.graphs.items()}
    half = type(later)(later.path, replace(later.manifest, graphs=graphs))
    with pytest.raises(BackendError, match=r"cannot take other weights: precision: got fp32 in"):
        refit_plans(half, former, "tensorrt", OPTIONS)


def test_backends_without_plans_have_none_to_refit(bundles):
    with pytest.raises(BackendError, match="expected tensorrt, tensorrt-rtx"):
        refit_plans(*bundles, "cpu", OPTIONS)


def test_a_library_whose_plans_would_not_stay_refittable_is_refused_first(
    bundles, refitting, fake_library
):
    later = bundles[1]
    fake_library.trt.SerializationFlag = SimpleNamespace()
    with pytest.raises(BackendError, match=r"expected 10\.14 or newer, .* to compile instead"):
        refit_plans(later, bundles[0], "tensorrt", OPTIONS)
    assert refitting.files == []


@pytest.mark.parametrize(
    ("options", "precision", "told"),
    [
        (OPTIONS, "fp16", r"got a graph 'predict' in fp32, expected fp16 .* --precision fp32$"),
        (replace(OPTIONS, targets=("8.9",)), "fp32", "compiles for the GPU at hand"),
        (replace(OPTIONS, level=5), "fp32", "option level: got 3 in the plan, expected 5"),
    ],
)
def test_a_refit_that_cannot_work_is_refused_before_the_export(
    bundles, refitting, options, precision, told
):
    former, _ = bundles
    names = ["predict", "short", "encoder", "decoder"]  # of which the former bundle has one
    check_refit(former, "tensorrt", OPTIONS, "fp32", names)
    with pytest.raises(BackendError, match=told):
        check_refit(former, "tensorrt", options, precision, names)
    assert refitting.files == []
