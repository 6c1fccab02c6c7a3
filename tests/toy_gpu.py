"""A GPU made of NumPy arrays, whose work happens only when it is waited for, and its engine."""

import enum
from collections import deque
from types import SimpleNamespace

import numpy as np

from lvdm_engines.backends.plan_facts import PlanOptions, Range
from lvdm_engines.backends.trt.library import TargetMachine
from lvdm_engines.errors import DeviceMemoryError, SessionError


class FakeMemory:
    """Device or pinned memory; use after free is an error."""

    def __init__(self, gpu, address, nbytes, pinned=False):
        self.gpu, self.address, self.nbytes, self.pinned = gpu, address, nbytes, pinned
        self._array = np.full(nbytes, 0xEE, np.uint8)  # never zero: nobody may rely on that
        self.open = True

    @property
    def array(self):
        assert self.open, "memory is used after it was freed"
        return self._array

    def close(self):
        assert self.open, "memory is freed twice"
        self.open = False
        if not self.pinned:
            del self.gpu.blocks[self.address]


class FakeStream:
    def __init__(self, gpu, handle):
        self.gpu, self.handle = gpu, handle
        self.queue = deque()
        self.capture = None
        self.open = True

    def put(self, work):
        assert self.open, "a closed stream is used"
        (self.queue if self.capture is None else self.capture).append(work)

    def upload(self, source, target, nbytes):
        self.gpu.log.append(("upload", nbytes))
        self.put(lambda: self._copy(target, source, nbytes))

    def download(self, source, target, nbytes):
        self.gpu.log.append(("download", nbytes))
        self.put(lambda: self._copy(target, source, nbytes))

    @staticmethod
    def _copy(target, source, nbytes):
        target.array[:nbytes] = source.array[:nbytes]

    def mark(self):
        mark = SimpleNamespace(stream=self, done=False)
        self.put(lambda: setattr(mark, "done", True))
        return mark

    def wait(self, mark):
        self.put(lambda: mark.done or mark.stream.sync())

    def record(self, enqueue):
        if self.gpu.refuse_recording:
            raise SessionError("cannot capture a CUDA graph: not permitted")
        self.capture = []
        try:
            enqueue(self.handle)
            work = self.capture
        finally:
            self.capture = None
        self.gpu.log.append(("record", len(work)))
        return FakeRecording(self, work)

    def sync(self):
        while self.queue:
            self.queue.popleft()()
        if self.gpu.fault is not None:
            fault, self.gpu.fault = self.gpu.fault, None
            raise fault

    def close(self):
        self.open = False


class FakeRecording:
    def __init__(self, stream, work):
        self.stream, self.work, self.open = stream, work, True

    def launch(self):
        assert self.open, "a dropped recording is launched"
        self.stream.gpu.log.append(("launch", len(self.work)))
        self.stream.queue.extend(self.work)

    def close(self):
        self.open = False


class FakeGpu:
    def __init__(self, budget=1 << 24):
        self.budget = budget
        self.blocks = {}
        self.streams = {}
        self.log = []
        self.refuse_recording = False
        self.fault = None
        self.pinned = []
        self._next = 1 << 20

    def activate(self):
        self.log.append(("activate", 0))

    def stream(self):
        handle = 1000 + len(self.streams)
        self.streams[handle] = FakeStream(self, handle)
        return self.streams[handle]

    def allocate(self, nbytes, stream):
        used = sum(block.nbytes for block in self.blocks.values())
        if used + nbytes > self.budget:
            raise DeviceMemoryError(f"cannot allocate {nbytes} bytes: out of GPU memory")
        self.log.append(("allocate", nbytes))
        address, self._next = self._next, self._next + (nbytes // 256 + 2) * 256
        self.blocks[address] = FakeMemory(self, address, nbytes)
        return self.blocks[address]

    def pin(self, nbytes):
        self.pinned.append(FakeMemory(self, 0, nbytes, pinned=True))
        return self.pinned[-1]

    def count(self, kind):
        return sum(1 for what, _ in self.log if what == kind)


class FakeContext:
    """eps = latents * mask + timestep; scribbles over its activations as a real one does."""

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


HERE = TargetMachine("tensorrt", "11.4.0.106", "NVIDIA H100 80GB HBM3", "9.0")
SMALL = PlanOptions(batch=Range(1, 2, 4))
PROFILES = (
    {"b": Range(1, 2, 4), "t": Range(4, 4, 4)},
    {"b": Range(5, 8, 16), "t": Range(4, 4, 4)},
    {"b": Range(1, 2, 4), "t": Range(5, 5, 5)},
)


def feeds_of(rows, clip=4, seed=0):
    """Feeds of the engine that differ with the seed."""
    rng = np.random.default_rng(seed)
    return {
        "latents": rng.standard_normal((rows, 2, clip, 2, 2), dtype=np.float32),
        "timestep": np.arange(rows, dtype=np.int64) + 10 * seed,
        "mask": (rng.random((rows, clip)) < 0.5).astype(np.float32),
        "noise_level": np.full(rows, -1),
    }


def expected(feeds):
    """What the engine computes."""
    late = feeds["timestep"][:, None, None, None, None].astype(np.float32)
    return feeds["latents"] * feeds["mask"][:, None, :, None, None] + late


def check_run(session, feeds):
    """Fail unless a session computes what the engine does."""
    np.testing.assert_array_equal(session.run(feeds)["eps"], expected(feeds))
