"""Toy models that tests share: what they are, and a denoiser that computes something simple.

Each function makes a fresh one; `changes` are fields that differ.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from lvdm_engines.bundle import Bundle, file_sha256
from lvdm_engines.bundle_writer import BundleWriter
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
WEIGHT = np.float32(0.25)


def model_facts(**changes: Any) -> ModelFacts:
    """A model with a predictor and an infill network, for frames of 16 × 16 pixels."""
    facts = ModelFacts(
        frame_size=(16, 16),
        frames_per_latent=4,
        latent=LatentFacts(channels=2, size=(2, 2), scale=0.5, shift=1.5),
        schedule=ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155),
        decode_window=4,
        predict=PredictFacts(clip=4, condition=1, stride=4),
        interpolate=InterpolateFacts(clip=5),
        noise_levels=250,
    )
    return replace(facts, **changes)


def graph_facts(file: str = "denoiser.onnx", **changes: Any) -> GraphFacts:
    """The denoiser of `model_facts()`, in a file that nobody wrote."""
    return replace(GraphFacts(file, "0" * 64, "fp32", INPUTS, OUTPUTS), **changes)


def manifest(**changes: Any) -> Manifest:
    """A manifest of `model_facts()` whose predictor and infill network are one file."""
    graphs = {"predict": graph_facts(), "interpolate": graph_facts()}
    provenance = Provenance(checkpoint_sha256="0" * 64, ema=True, lvdm_rt="0.1.0")
    made = Manifest(name="tiny", model=model_facts(), graphs=graphs, provenance=provenance)
    return replace(made, **changes)


def timed(specs: Iterable[TensorSpec], length: int | str) -> tuple[TensorSpec, ...]:
    """Tensors of a denoiser with another number of latents, or with any where it is a name."""
    axes = {"latents": 2, "eps": 2, "mask": 1}

    def changed(spec: TensorSpec) -> TensorSpec:
        axis = axes.get(spec.name)
        return replace(
            spec, shape=(*(length if i == axis else n for i, n in enumerate(spec.shape)),)
        )

    return tuple(map(changed, specs))


def write_bundle(folder: Path, *, force: bool = False, **options: bool) -> Bundle:
    """Write the bundle of `manifest()`, with a real denoiser; see `write_denoiser`."""
    with BundleWriter(folder, force=force) as writer:
        file = writer.path / "denoiser.onnx"
        write_denoiser(file, **options)
        data = Path(f"{file}.data")
        facts = graph_facts(
            sha256=file_sha256(file), data_sha256=file_sha256(data) if data.exists() else None
        )
        return writer.finish(manifest(graphs={"predict": facts, "interpolate": facts}))


def write_denoiser(path: Path, *, external: bool = False) -> None:
    """Write a graph of eps = latents * mask + weight, its weight in a file of its own if asked."""
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Unsqueeze", ["mask", "axes"], ["wide"]),
        helper.make_node("Mul", ["latents", "wide"], ["product"]),
        helper.make_node("Add", ["product", "weight"], ["eps"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 3, 4], np.int64), "axes"),
        numpy_helper.from_array(np.full((2, 1, 2, 2), WEIGHT), "weight"),
    ]
    write_graph(path, nodes, INPUTS, OUTPUTS, constants, external=external)


def write_graph(
    path: Path,
    nodes: Any,
    inputs: Any,
    outputs: Any,
    constants: Any = (),
    *,
    external: bool = False,
) -> None:
    """Write an ONNX file; `external` moves constants of more than 60 bytes into one beside it."""
    import onnx

    def value(spec: TensorSpec) -> onnx.ValueInfoProto:
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        return onnx.helper.make_tensor_value_info(spec.name, kind, spec.shape)

    graph = onnx.helper.make_graph(
        nodes, "toy", list(map(value, inputs)), list(map(value, outputs)), list(constants)
    )
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10),
        path,
        save_as_external_data=external,
        location=f"{path.name}.data",
        size_threshold=60,  # a weight, but not the axes that shape inference reads
    )


def feeds(rows: int = 2, clip: int = 4) -> dict[str, np.ndarray]:
    """Feeds of the denoiser; the first row has its first latent given, at noise level 100."""
    shape = (rows, 2, clip, 2, 2)  # (b, c, t, h, w)
    mask = np.zeros((rows, clip), np.float32)
    mask[0, 0] = 1
    return {
        "latents": np.arange(np.prod(shape), dtype=np.float32).reshape(shape),
        "timestep": np.full(rows, 5),
        "mask": mask,
        "noise_level": np.array([100, *[-1] * (rows - 1)]),
    }


def eps(fed: dict[str, np.ndarray]) -> np.ndarray:
    """What the denoiser computes."""
    return fed["latents"] * fed["mask"][:, None, :, None, None] + WEIGHT
