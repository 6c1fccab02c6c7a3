"""What differs from other sessions, which `test_session` tries on this one too."""

import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import toy
from msgspec.structs import replace

from lvdm_engines.backends.backend import SessionOptions, Timed
from lvdm_engines.backends.gpu.uploads import unchanged
from lvdm_engines.backends.ort import cuda
from lvdm_engines.backends.ort.cuda import _IDENTITY, BoundSession, open_cuda, provider_problem
from lvdm_engines.bundle import GraphSource
from lvdm_engines.errors import BackendError, DeviceMemoryError, SessionError
from lvdm_engines.manifest import TensorSpec


@pytest.fixture
def session(source, native):
    with BoundSession(source, onnxruntime, native, ("cpu", 0)) as made:
        yield made


def test_changed_feeds_are_copied_again_even_when_changed_in_place(session, feeds):
    session.run(feeds)
    feeds["mask"][:] = 1
    feeds["latents"] = feeds["latents"] + 1
    np.testing.assert_array_equal(session.run(feeds)["eps"], toy.eps(feeds))


def test_feeds_that_stay_are_copied_once_however_large(session, feeds, monkeypatch):
    session.run(feeds)
    bound = next(iter(session._bound.values()))
    copied = []
    for name, value in list(bound.inputs.items()):

        def update(array, name=name, value=value):
            copied.append(name)
            value.update_inplace(array)

        monkeypatch.setitem(bound.inputs, name, SimpleNamespace(update_inplace=update))
    feeds["latents"] = feeds["latents"] + 1
    np.testing.assert_array_equal(session.run(feeds)["eps"], toy.eps(feeds))
    assert copied == ["latents"]


def test_runs_and_copies_are_timed_alone(session, feeds):
    assert isinstance(session, Timed)
    assert session.device_seconds(feeds, 2) > 0
    assert session.copy_seconds(feeds, ["latents"], 2) > 0
    np.testing.assert_array_equal(session.run(feeds)["eps"], toy.eps(feeds))


def test_an_interrupted_copy_is_made_again(session, feeds, monkeypatch):
    session.run(feeds)
    bound = next(iter(session._bound.values()))
    mask = bound.inputs["mask"]

    def interrupted(array):
        mask.update_inplace(array)
        raise KeyboardInterrupt

    monkeypatch.setitem(bound.inputs, "mask", SimpleNamespace(update_inplace=interrupted))
    with pytest.raises(KeyboardInterrupt):
        session.run({**feeds, "mask": 1 - feeds["mask"]})
    monkeypatch.undo()
    np.testing.assert_array_equal(session.run(feeds)["eps"], toy.eps(feeds))


def test_more_shapes_than_are_kept_still_run(session):
    for length in range(1, 12):
        assert session.run(toy.feeds(2, length))["eps"].shape == (2, 2, length, 2, 2)


def test_an_output_of_a_size_that_no_input_has_is_refused(source, native, feeds):
    facts = replace(source.facts, outputs=(TensorSpec("eps", "float32", ("b", 2, "n", 2, 2)),))
    other = GraphSource("predict", facts, source.folder)
    session = BoundSession(other, onnxruntime, native, ("cpu", 0))
    with pytest.raises(SessionError, match=r"'n' of eps .* is that of no input"):
        session.run(feeds)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered", SessionError),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", DeviceMemoryError),
        ("Failed to allocate memory for requested buffer of size 9", DeviceMemoryError),
        ("CUDA failure 2: out of memory ; GPU=0", DeviceMemoryError),
    ],
)
@pytest.mark.parametrize("where", ["ortvalue_from_shape_and_type", "update_inplace", "run"])
def test_what_buffers_raise_is_an_error_of_the_session(source, native, feeds, where, text, kind):
    def fail(*_):
        raise RuntimeError(text)

    def make(shape, dtype, *place):
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *place)
        value.update_inplace = fail
        return value

    session = BoundSession(source, onnxruntime, native, ("cpu", 0))
    if where == "run":
        session._native = SimpleNamespace(io_binding=native.io_binding, run_with_iobinding=fail)
    else:
        made = fail if where.startswith("ortvalue") else make
        value = SimpleNamespace(ortvalue_from_shape_and_type=made)
        session._ort = SimpleNamespace(OrtValue=value, RunOptions=onnxruntime.RunOptions)
    with pytest.raises(SessionError) as caught:
        session.run(feeds)
    assert type(caught.value) is kind
    assert not session._bound
    session._ort, session._native = onnxruntime, native
    np.testing.assert_array_equal(session.run(feeds)["eps"], toy.eps(feeds))


class FakeOrt:
    """onnxruntime as far as opening the graph `native` on `provider`, which it got to start."""

    SessionOptions, RunOptions = onnxruntime.SessionOptions, onnxruntime.RunOptions

    def __init__(self, native=None, provider="CUDAExecutionProvider", error=None):
        self.native, self.provider, self.error = native, provider, error
        self.preloaded, self.providers = 0, None

    def preload_dlls(self):
        self.preloaded += 1
        print("Failed to load libcublas.so.12")  # noqa: T201 - as the library does

    def get_available_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, model, options, providers):  # noqa: N802 - the library's name
        assert self.preloaded or self.native
        self.providers = providers
        if self.error is not None:
            raise self.error
        return SimpleNamespace(
            get_providers=lambda: [self.provider],
            get_inputs=getattr(self.native, "get_inputs", None),
            get_outputs=getattr(self.native, "get_outputs", None),
        )


def test_a_provider_that_starts_is_no_problem_and_prints_nothing(capsys):
    fake = FakeOrt()
    assert provider_problem(fake) is None
    assert provider_problem(fake) is None
    assert fake.preloaded == 1
    assert fake.providers == ["CUDAExecutionProvider"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("fake", "why"),
    [
        (FakeOrt(provider="CPUExecutionProvider"), "its libraries cannot be loaded"),
        (FakeOrt(error=RuntimeError("CUDA failure 35: driver")), "CUDA failure 35: driver"),
    ],
)
def test_a_provider_that_is_listed_but_does_not_start_is_unusable(fake, why, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(cuda, "driver_problem", lambda: None)
    told = cuda.CUDA.unusable()
    assert told.startswith(f"onnxruntime could not start its CUDAExecutionProvider ({why});")
    assert told.endswith("come with pip install 'lvdm-rt[cuda]'")


def test_without_a_gpu_the_provider_is_not_even_started(monkeypatch):
    fake = FakeOrt()
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(cuda, "driver_problem", lambda: "no NVIDIA driver")
    assert cuda.CUDA.unusable() == "no NVIDIA driver; use --backend cpu"
    assert fake.preloaded == 0


@pytest.mark.parametrize("shape", [(1, 4, 5, 8, 8), (8, 4, 5, 32, 32), (16, 4, 4, 32, 32)])
def test_latents_differ_at_a_glance_though_given_frames_stay(shape, monkeypatch):
    latents = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    other = latents.copy()
    other[:, :, 1:-1] += 1  # as in a gap between two given frames
    compared = []
    equal = np.array_equal
    monkeypatch.setattr(np, "array_equal", lambda a, b: compared.append(a.size) or equal(a, b))
    assert not unchanged(latents, other)
    assert len(compared) == 1
    assert compared[0] < 130


def test_a_change_anywhere_is_found():
    mask = np.zeros((3, 5), np.float32)
    for index in np.ndindex(mask.shape):
        other = mask.copy()
        other[index] = 1
        assert not unchanged(mask, other)
    assert unchanged(mask, mask.copy())
    assert not unchanged(mask, mask[:2])
    assert not unchanged(None, mask)


def test_the_model_that_starts_a_provider_is_a_model():
    native = onnxruntime.InferenceSession(_IDENTITY, providers=["CPUExecutionProvider"])
    x = np.float32([3])
    assert native.run(None, {"x": x})[0] == x


def test_a_graph_opens_on_the_gpu_that_was_asked_for(source, native):
    fake = FakeOrt(native)
    with open_cuda(source, fake, SessionOptions(device=1)) as session:
        assert session.backend == "cuda"
    ((_, settings),) = fake.providers
    assert settings["device_id"] == 1


def test_a_provider_that_did_not_start_is_an_error_not_a_fallback(source, native):
    with pytest.raises(BackendError, match="could not start its CUDAExecutionProvider"):
        open_cuda(source, FakeOrt(native, "CPUExecutionProvider"), SessionOptions())
