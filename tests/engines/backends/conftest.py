"""An engine on the GPU made of NumPy arrays."""

import enum
import hashlib
import logging
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from lvdm_engines.backends.gpu.scratch import SharedScratch
from lvdm_engines.backends.plan_facts import Fingerprint, PlanFacts, PlanOptions, Range
from lvdm_engines.backends.trt.context import OpenEngine
from lvdm_engines.backends.trt.library import TargetMachine, TrtLibrary
from lvdm_engines.backends.trt.session import TrtSession
from lvdm_engines.backends.trt.store import save_plan
from lvdm_engines.manifest import TensorSpec


class FakeContext:
    """eps = latents * scale + mask of row; scribbles over its activations as a real one does."""

    def __init__(self, engine):
        self.engine, self.gpu = engine, engine.gpu
        self.shapes, self.addresses = {}, {}
        self.profile = self.memory = None

    def set_optimization_profile_async(self, index, handle):
        assert handle in self.gpu.streams
        self.profile = index
        return index < len(self.engine.profiles)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address in self.gpu.blocks

    def set_input_shape(self, name, shape):
        spec = next(s for s in self.engine.inputs if s.name == name)
        allowed = self.engine.profiles[self.profile]
        self.shapes[name] = tuple(shape)
        return all(
            size in allowed[dim] if isinstance(dim, str) else size == dim
            for dim, size in zip(spec.shape, shape, strict=True)
        )

    def infer_shapes(self):
        return [s.name for s in self.engine.inputs if s.name not in self.shapes]

    def get_tensor_shape(self, name):
        return self.shapes["latents"]

    def set_device_memory(self, address, nbytes):
        self.memory = (address, nbytes)

    def execute_async_v3(self, handle):
        if self.engine.error is not None:
            self.engine.errors.append(self.engine.error)
            return False
        stream = self.gpu.streams[handle]
        shapes, addresses, memory = dict(self.shapes), dict(self.addresses), self.memory
        if stream.capture is None:
            self.gpu.log.append(("execute", shapes["latents"][0]))
        stream.put(lambda: self._compute(shapes, addresses, memory))
        return True

    def _compute(self, shapes, addresses, memory):
        address, nbytes = memory
        assert self.gpu.blocks[address].nbytes >= nbytes == self.engine.activations[self.profile]
        self.gpu.blocks[address].array[:nbytes] ^= 0xFF
        arrays = {
            spec.name: self._array(addresses[spec.name], spec.dtype, shapes[spec.name])
            for spec in self.engine.inputs
        }
        eps = self._array(addresses["eps"], "float32", shapes["latents"])
        given = arrays["mask"][:, None, :, None, None]
        late = arrays["timestep"][:, None, None, None, None].astype(np.float32)
        eps[...] = arrays["latents"] * given + late

    def _array(self, address, dtype, shape):
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.gpu.blocks[address].array[:nbytes].view(dtype).reshape(shape)


class Mode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class FakeEngine:
    def __init__(self, gpu, inputs, outputs, profiles, activations):
        self.gpu, self.inputs, self.outputs = gpu, inputs, outputs
        self.profiles, self.activations = profiles, activations
        self.contexts = []
        self.error, self.errors = None, None

    @property
    def num_io_tensors(self):
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index):
        return [*self.inputs, *self.outputs][index].name

    def _spec(self, name):
        return next(s for s in (*self.inputs, *self.outputs) if s.name == name)

    def get_tensor_mode(self, name):
        return Mode.INPUT if self._spec(name) in self.inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name):
        words = {"float32": "FLOAT", "int64": "INT64", "float16": "HALF"}
        return SimpleNamespace(name=words[self._spec(name).dtype])

    def get_tensor_shape(self, name):
        return tuple(n if isinstance(n, int) else -1 for n in self._spec(name).shape)

    def get_device_memory_size_for_profile_v2(self, index):
        return self.activations[index]

    def create_runtime_config(self):
        self.settings = FakeSettings()
        return self.settings

    def create_execution_context(self, strategy="user managed", *, runtime_config=None):
        chosen = strategy if runtime_config is None else runtime_config.strategy
        assert chosen == "user managed"
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


class FakeSettings:
    """How TensorRT-RTX runs an engine; keeps what it is told."""

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return SimpleNamespace(
            deserialize=lambda data: setattr(self, "known", data) or True,
            serialize=lambda: b"kernels",
        )

    def set_runtime_cache(self, kernels):
        self.kernels = kernels


INPUTS = (
    TensorSpec("latents", "float32", ("b", 2, "t", 2, 2)),
    TensorSpec("timestep", "int64", ("b",)),
    TensorSpec("mask", "float32", ("b", "t")),
)
OUTPUTS = (TensorSpec("eps", "float32", ("b", 2, "t", 2, 2)),)
PROFILES = (
    {"b": Range(1, 2, 4), "t": Range(4, 4, 4)},
    {"b": Range(5, 8, 16), "t": Range(4, 4, 4)},
    {"b": Range(1, 2, 4), "t": Range(5, 5, 5)},
)


@pytest.fixture
def engine(gpu):
    return FakeEngine(gpu, INPUTS, OUTPUTS, PROFILES, [1000, 4000, 1200])


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
            **{"inputs": INPUTS, "outputs": OUTPUTS, "profiles": PROFILES, **changes},
        )

    return make


@pytest.fixture
def session(opened):
    with TrtSession(opened(), "lvdm-export build-engines --bundle B --backend tensorrt") as made:
        yield made


@pytest.fixture
def feeds_of():
    def make(rows, clip=4, seed=0):
        rng = np.random.default_rng(seed)
        return {
            "latents": rng.standard_normal((rows, 2, clip, 2, 2), dtype=np.float32),
            "timestep": np.arange(rows, dtype=np.int64) + 10 * seed,
            "mask": (rng.random((rows, clip)) < 0.5).astype(np.float32),
        }

    return make


@pytest.fixture
def expected():
    def compute(feeds):
        late = feeds["timestep"][:, None, None, None, None].astype(np.float32)
        return feeds["latents"] * feeds["mask"][:, None, :, None, None] + late

    return compute


PLAN = b"the plan"
HERE = TargetMachine("tensorrt", "11.4.0.106", "NVIDIA H100 80GB HBM3", "9.0")
PLAN_PROFILES = tuple({"b": Range(1, 2, 4), "t": Range(n, n, n)} for n in (4, 5))


@pytest.fixture
def here():
    return HERE


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
def source(make_bundle, engine):
    bundle = make_bundle()
    source = bundle.graph("predict")
    engine.inputs, engine.outputs = source.facts.inputs, source.facts.outputs
    return source


@pytest.fixture
def make_plan(source):
    def make(data=PLAN, built_at="2026-01-01T00:00:00+00:00", **changes):
        fingerprint = Fingerprint(
            graph="denoiser",
            library="tensorrt",
            version=HERE.version,
            gpu=HERE.gpu,
            capability=HERE.capability,
            onnx_sha256=source.facts.sha256,
            data_sha256=None,
            precision="fp32",
            profiles=PLAN_PROFILES,
            options=PlanOptions(batch=Range(1, 2, 4)),
        )
        facts = PlanFacts(
            file="denoiser.plan",
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            fingerprint=replace(fingerprint, **changes),
            seconds=1.0,
            built_at=built_at,
        )
        return save_plan(source, facts, data)

    return make
