"""Sessions and plans of the engine that is made of NumPy arrays."""

import hashlib
import logging
from collections import deque
from types import SimpleNamespace

import pytest
import toy
from msgspec.structs import replace
from toy_gpu import HERE, PROFILES, SMALL, FakeEngine, FakeGpu, Mode

from lvdm_engines.backends.gpu.driver import Gpu
from lvdm_engines.backends.gpu.scratch import SharedScratch
from lvdm_engines.backends.plan_facts import PlanFacts, Range
from lvdm_engines.backends.trt import build, library, opening
from lvdm_engines.backends.trt import compile as compile_
from lvdm_engines.backends.trt.context import OpenEngine
from lvdm_engines.backends.trt.library import TrtLibrary
from lvdm_engines.backends.trt.session import TrtSession
from lvdm_engines.backends.trt.store import fingerprint_of, save_plan
from lvdm_engines.bundle import load_bundle


@pytest.fixture
def gpu():
    return FakeGpu()


@pytest.fixture
def engine(gpu):
    return FakeEngine(gpu, toy.INPUTS, toy.OUTPUTS, PROFILES, [1000, 4000, 1200])


@pytest.fixture
def fake_library():
    """TensorRT's names as far as opening a plan needs them."""
    severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)
    trt = SimpleNamespace(
        ILogger=type("ILogger", (), {"Severity": severity}),
        TensorIOMode=Mode,
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
        __version__="11.4.0.106",
    )
    return TrtLibrary("tensorrt", trt, trt.__version__, logging.getLogger("fake"), deque(maxlen=8))


@pytest.fixture
def opened(gpu, engine, fake_library):
    engine.errors = fake_library.errors

    def make(scratch=None, **changes):
        return OpenEngine(
            name="predict",
            library=fake_library,
            engine=engine,
            new_context=engine.create_execution_context,
            device=gpu,
            stream=gpu.stream(),
            scratch=scratch or SharedScratch(gpu),
            **{
                "inputs": toy.INPUTS,
                "outputs": toy.OUTPUTS,
                "profiles": engine.profiles,
                **changes,
            },
        )

    return make


@pytest.fixture
def session(opened):
    with TrtSession(opened(), "lvdm-export build-engines --bundle B --backend tensorrt") as made:
        yield made


PLAN = b"the plan"
PLAN_PROFILES = tuple({"b": Range(1, 2, 4), "t": Range(n, n, n)} for n in (4, 5))


@pytest.fixture
def runtimes(fake_library, engine):
    """Give the fake library a runtime that opens anything as `engine`; returns those made."""
    made = []

    class Runtime:
        def __init__(self, logger):
            self.engine_host_code_allowed = True  # the worst default that there could be
            self.opened = []
            made.append(self)

        def deserialize_cuda_engine(self, data):
            assert self.engine_host_code_allowed is False
            self.opened.append(bytes(data))
            return None if engine.error else engine

        def load_runtime(self, path):
            self.lean = path
            return self

    fake_library.trt.Runtime = Runtime
    engine.profiles = PLAN_PROFILES
    engine.activations = [1000, 1200]
    engine.errors = fake_library.errors
    return made


@pytest.fixture
def make_plan(source):
    def make(data=PLAN, built_at="2026-01-01T00:00:00+00:00", options=SMALL, **changes):
        manifest = load_bundle(source.folder).manifest
        facts = PlanFacts(
            file="denoiser.plan",
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            fingerprint=replace(fingerprint_of(source, manifest, HERE, options), **changes),
            seconds=1.0,
            built_at=built_at,
        )
        return save_plan(source, facts, data)

    return make


@pytest.fixture
def open_plan(source, fake_library, gpu, runtimes):
    """Open a plan of `source` by the fake library on the fake GPU."""
    return lambda plan: opening.open_session(source, plan, fake_library, gpu)


@pytest.fixture
def set_gpus(monkeypatch):
    """Let a driver see GPUs, by name and compute capability."""

    def there(*found):
        gpus = [Gpu(name, capability, 1, 1, "CUDA 13.0") for name, capability in found]
        for module in (library, build, compile_):
            monkeypatch.setattr(module, "gpus", lambda: gpus)
        monkeypatch.setattr(library, "driver_problem", lambda: None if gpus else "no GPU")

    return there


@pytest.fixture
def installed(fake_library, monkeypatch, set_gpus):
    """A machine with every package and one H100, on which any library is the fake one."""
    for name in ("missing", "lacks_cuda"):
        monkeypatch.setattr(library, name, lambda name: None)
    monkeypatch.setattr(library, "load_library", lambda name: fake_library)
    monkeypatch.setattr(build, "summary_of", lambda library, plan: {})
    set_gpus((HERE.gpu, HERE.capability))
    library._start_problem.cache_clear()
    yield
    library._start_problem.cache_clear()
