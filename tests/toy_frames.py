"""A toy bundle that makes frames: graphs that only rearrange and scale."""

from pathlib import Path

import numpy as np
import toy
from onnx import TensorProto, checker, helper, numpy_helper

from lvdm_engines.bundle import file_sha256
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.contract import graph_tensors
from lvdm_engines.defaults import Defaults
from lvdm_engines.manifest import GraphFacts, LatentFacts, ModelFacts, ScheduleFacts
from lvdm_engines.preview_map import PreviewMap

MODEL = toy.model_facts(
    latent=LatentFacts(channels=2, size=(2, 2), scale=1.0, shift=0.0),
    schedule=ScheduleFacts("sqrt-linear", 100, 0.0015, 0.0155),
    noise_levels=50,
)
PREVIEW = PreviewMap((127.5,) * 3, ((63.75,) * 3,) * 2)
BLOCKS = [0, 4, 4, 2, 8, 2, 8, 3]  # (b, t, 4 frames, h, 8 rows, w, 8 columns, colour)


def encoder_nodes() -> tuple[list[object], dict[str, np.ndarray]]:
    """Both channels: mean of a block of pixels, from 0..255 to -1..1."""
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        node("Reshape", ["pixels", "blocks"], ["blocked"]),
        node("ReduceMean", ["blocked", "inside"], ["means"], keepdims=0),  # (b, t, h, w)
        node("Div", ["means", "half"], ["scaled"]),
        node("Sub", ["scaled", "one"], ["centred"]),
        node("Unsqueeze", ["centred", "axis"], ["channel"]),
        node("Concat", ["channel", "channel"], ["latents"], axis=1),
    ]
    return nodes, {
        "blocks": np.array(BLOCKS),
        "inside": np.array([2, 4, 6, 7]),
        "half": np.float32(127.5),
        "one": np.float32(1),
        "axis": np.array([1]),
    }


def decoder_nodes() -> tuple[list[object], dict[str, np.ndarray]]:
    """The inverse: every block of pixels gets the mean of both channels."""
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["latents", "axis"], ["means"], keepdims=0),
        node("Add", ["means", "one"], ["shifted"]),
        node("Mul", ["shifted", "half"], ["levels"]),
        node("Clip", ["levels", "zero", "most"], ["clipped"]),
        node("Round", ["clipped"], ["rounded"]),
        node("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        node("Unsqueeze", ["bytes", "inside"], ["wide"]),
        node("Tile", ["wide", "repeats"], ["blocked"]),
        node("Reshape", ["blocked", "shape"], ["frames"]),
    ]
    return nodes, {
        "axis": np.array([1]),
        "one": np.float32(1),
        "half": np.float32(127.5),
        "zero": np.float32(0),
        "most": np.float32(255),
        "inside": np.array([2, 4, 6, 7]),
        "repeats": np.array([1, 1, 4, 1, 8, 1, 8, 3]),
        "shape": np.array([0, 16, 16, 16, 3]),
    }


def denoiser_nodes(weight: float = 0.7) -> tuple[list[object], dict[str, np.ndarray]]:
    """eps = weight * latents, a little different where the mask is set."""
    node = helper.make_node
    nodes = [
        node("Mul", ["latents", "weight"], ["scaled"]),
        node("Unsqueeze", ["mask", "axes"], ["wide"]),
        node("Mul", ["wide", "little"], ["bump"]),
        node("Add", ["scaled", "bump"], ["eps"]),
    ]
    return nodes, {
        "weight": np.float32(weight),
        "axes": np.array([1, 3, 4]),
        "little": np.float32(0.1),
    }


def write_graph(
    folder: Path, name: str, nodes: list[object], constants: object, model: ModelFacts = MODEL
) -> GraphFacts:
    inputs, _, outputs = graph_tensors(name, model)
    path = folder / f"{name}.onnx"
    arrays = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    toy.write_graph(path, nodes, inputs, outputs, arrays)
    checker.check_model(path)
    return GraphFacts(path.name, file_sha256(path), "fp32", tuple(inputs), tuple(outputs))


def write_bundle(target: Path, weight: float = 0.7) -> Path:
    """Write a bundle named toy: encoder, decoder, predictor and infill network.

    Its previews are exact: the decoder is a linear map.
    """
    graphs = {
        "encoder": encoder_nodes(),
        "decoder": decoder_nodes(),
        "predict": denoiser_nodes(weight),
        "interpolate": denoiser_nodes(weight),
    }
    with BundleWriter(target) as writer:
        facts = {name: write_graph(writer.path, name, *parts) for name, parts in graphs.items()}
        defaults = Defaults("ddim", 5, 1.0, guidance=0.1, noise_level=10, fps=8.0)
        parts = {"model": MODEL, "graphs": facts, "defaults": defaults, "preview": PREVIEW}
        writer.finish(toy.manifest(name="toy", **parts))
    return target
