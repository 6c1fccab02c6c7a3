from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lvdm_engines.bundle import Bundle, file_sha256
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.errors import DeviceMemoryError, SessionError
from lvdm_engines.manifest import (
    GraphFacts,
    InterpolateFacts,
    LatentFacts,
    Manifest,
    ModelFacts,
    PredictFacts,
    Provenance,
    ScheduleFacts,
    TensorSpec,
)

LATENTS = ("b", 2, "t", 2, 2)
INPUTS = (
    TensorSpec("latents", "float32", LATENTS),
    TensorSpec("timestep", "int64", ("b",)),
    TensorSpec("mask", "float32", ("b", "t")),
    TensorSpec("noise_level", "int64", ("b",)),
)
OUTPUTS = (TensorSpec("eps", "float32", LATENTS),)
_ONNX_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}


@pytest.fixture
def model() -> ModelFacts:
    return ModelFacts(
        frame_size=(16, 16),
        frames_per_latent=4,
        latent=LatentFacts(channels=2, size=(2, 2), scale=0.5, shift=1.5),
        schedule=ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155),
        decode_window=4,
        predict=PredictFacts(clip=4, condition=1, stride=4),
        interpolate=InterpolateFacts(clip=5),
        noise_levels=250,
    )


@pytest.fixture
def make_manifest(model: ModelFacts) -> Callable[..., Manifest]:
    def make(**graphs: GraphFacts) -> Manifest:
        provenance = Provenance(checkpoint_sha256="0" * 64, ema=True, lvdm_rt="0.1.0")
        return Manifest(name="tiny", model=model, graphs=graphs, provenance=provenance)

    return make


@pytest.fixture
def graph_facts() -> GraphFacts:
    return GraphFacts("predict.onnx", "0" * 64, "fp32", INPUTS, OUTPUTS)


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _ONNX_TYPES[spec.dtype], spec.shape)


def write_denoiser(path: Path, *, external: bool = False, batch: int | str = "b") -> None:
    """A graph with eps = latents * mask + weight, where the weight is (2, 1, 2, 2) of 0.25."""
    nodes = [
        helper.make_node("Unsqueeze", ["mask", "axes"], ["wide"]),
        helper.make_node("Mul", ["latents", "wide"], ["product"]),
        helper.make_node("Add", ["product", "weight"], ["eps"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 3, 4], np.int64), "axes"),
        numpy_helper.from_array(np.full((2, 1, 2, 2), 0.25, np.float32), "weight"),
    ]
    inputs = [TensorSpec(s.name, s.dtype, (batch, *s.shape[1:])) for s in INPUTS]
    graph = helper.make_graph(
        nodes, "denoiser", [_value(s) for s in inputs], [_value(s) for s in OUTPUTS], constants
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(
        proto,
        path,
        save_as_external_data=external,
        location=f"{path.name}.data",
        size_threshold=60,  # the weight, but not the axes that shape inference reads
    )


@pytest.fixture
def make_bundle(
    tmp_path: Path, make_manifest: Callable[..., Manifest], graph_facts: GraphFacts
) -> Callable[..., Bundle]:
    """Write a bundle whose predict and interpolate graphs are one file."""

    def make(folder: str = "bundle", *, force: bool = False, **options: bool | int) -> Bundle:
        with BundleWriter(tmp_path / folder, force=force) as writer:
            file = writer.path / "denoiser.onnx"
            write_denoiser(file, **options)
            data = Path(f"{file}.data")
            facts = GraphFacts(
                file=file.name,
                sha256=file_sha256(file),
                precision="fp32",
                inputs=INPUTS,
                outputs=OUTPUTS,
                data_sha256=file_sha256(data) if data.exists() else None,
            )
            return writer.finish(make_manifest(predict=facts, interpolate=facts))

    return make


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    latents = np.arange(2 * 2 * 4 * 4, dtype=np.float32).reshape(2, 2, 4, 2, 2)  # (b, c, t, h, w)
    return {
        "latents": latents,
        "timestep": np.array([5, 5]),
        "mask": np.array([[1, 0, 0, 0], [0, 0, 0, 0]], np.float32),
        "noise_level": np.array([100, -1]),
    }


# A GPU made of NumPy arrays, with work that happens only when a stream is waited for.


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


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()
