"""From a graph's file to a compiled form for fixed sizes, which is kept for the next time.

With free sizes the library computes more slowly than ONNX Runtime, so every set of sizes is
compiled for itself, which takes seconds; reading what was kept takes a third of that.
"""

import hashlib
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from lvdm_engines.backends.backend import CpuPrecision
from lvdm_engines.backends.ov.library import (
    core,
    load,
    native_errors,
    session_error,
    short,
    version,
)
from lvdm_engines.backends.processor import processor
from lvdm_engines.backends.user_folders import keep_cached, read_cached
from lvdm_engines.bundle import GraphSource
from lvdm_engines.manifest import Dtype, TensorSpec

_log = logging.getLogger(__name__)

_FORMAT = 1  # of what is kept, and of how this code compiles: raise it when either changes
_LARGEST_KEPT = 256 << 20  # bytes of a graph: beyond, keeping it would fill the disk
_DTYPES: dict[str, Dtype] = {
    "f32": "float32",
    "f16": "float16",
    "i64": "int64",
    "i32": "int32",
    "u8": "uint8",
    "boolean": "bool",
}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Compiler:
    """Compiles one graph for one precision and number of threads."""

    source: GraphSource
    precision: CpuPrecision
    threads: int | None

    @property
    def keeps(self) -> bool:
        """Whether forms are kept for the next time."""
        return self.source.bytes <= _LARGEST_KEPT

    def request(self, shapes: Shapes) -> Any:
        """Return what runs the graph with inputs of these shapes."""
        if (kept := self.kept(shapes)) is not None:
            return kept
        model = read_model(self.source)
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        compiled = core().compile_model(model, "CPU", self._settings)
        if self.keeps:
            exported = io.BytesIO()
            compiled.export_model(exported)
            keep_cached(self._file(shapes), exported.getvalue())
        return compiled.create_infer_request()

    def kept(self, shapes: Shapes) -> Any:
        """Return what runs the graph if it was kept for these shapes, None otherwise."""
        compiled = self._read(self._file(shapes)) if self.keeps else None
        return None if compiled is None else compiled.create_infer_request()

    def _file(self, shapes: Shapes) -> str:
        return f"openvino/{self.digest(shapes)}"

    def digest(self, shapes: Shapes) -> str:
        """Return the fingerprint of everything that decides what is compiled."""
        facts = self.source.facts
        name, instructions = processor()
        decides = (_FORMAT, facts.sha256, facts.data_sha256, version(), self._settings)
        data = msgspec.json.encode((*decides, name, sorted(instructions), dict(shapes)))
        return hashlib.sha256(data).hexdigest()[:32]

    def _read(self, name: str) -> Any:
        data = read_cached(name)
        if data is None:
            return None
        try:
            return core().import_model(io.BytesIO(data), "CPU", self._settings)
        except native_errors() as err:
            _log.info("%s: cannot be read (%s); compiling again", name, short(err))
            return None

    @property
    def _settings(self) -> dict[str, Any]:
        """Threads are not tied to cores: other sessions, and other programs, run there too."""
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        if self.threads is not None:
            settings["INFERENCE_NUM_THREADS"] = self.threads
        return settings


def read_model(source: GraphSource) -> Any:
    """Read a graph's file, once it is what the manifest promises; nothing but ONNX is tried."""
    path = str(source.verified())
    try:
        reader = load().frontend.FrontEndManager().load_by_framework("onnx")
        return reader.convert(reader.load(path))
    except native_errors() as err:
        raise session_error(source.name, "open", err) from err


def check_graph(source: GraphSource, model: Any) -> None:
    """Refuse a graph whose real tensors are not the declared ones."""
    facts = source.facts
    declared = {spec.name for spec in (*facts.inputs, *facts.outputs)}
    source.check_tensors(_specs(model.inputs, declared), _specs(model.outputs, declared))


def _specs(ports: Any, declared: set[str]) -> list[TensorSpec]:
    specs = []
    for port in ports:
        names = sorted(port.names, key=lambda name: (name not in declared, name))
        kind = port.element_type.get_type_name()
        shape = tuple("?" if d.is_dynamic else d.get_length() for d in port.partial_shape)
        specs.append(TensorSpec(names[0] if names else "?", _DTYPES.get(kind, kind), shape))
    return specs
