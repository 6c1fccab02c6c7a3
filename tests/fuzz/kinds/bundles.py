"""Bundles: manifests and what lies beside them, and graphs whose sha256 was updated."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import toy_frames
from fuzz.kind import Kind, Rng, command, commands, outputs
from onnx import TensorProto
from toy_damage import damage

from lvdm_engines.bundle import file_sha256

FLAGS = ("--bundle", "./toy", "--frames", "8", "-q", "-o", "sky.npz")


def prepare(folder: Path) -> None:
    """Write the toy bundle."""
    toy_frames.write_bundle(folder / "toy")


def manifest(folder: Path, rng: Rng) -> str:
    """Change the manifest: values, names of files, its text, or what lies in its place."""
    path = folder / "toy" / "manifest.json"
    if rng.random() < 0.2:
        files = sorted((folder / "toy").iterdir())
        return damage(files[int(rng.integers(len(files)))], rng)
    if rng.random() < 0.5:
        return damage(path, rng)
    whole = json.loads(path.read_text())
    graphs = list(whole["graphs"].values())
    graph = graphs[rng.integers(len(graphs))]
    names = ("../x.onnx", "/etc/passwd", "a/../../b.onnx", "", ".", "x\0y", "x" * 300, "toy\n.onnx",
             "manifest.json", "encoder.onnx", "link.onnx", "loop.onnx")  # fmt: skip
    name = names[rng.integers(len(names))]
    graph["file"] = name
    (folder / "toy" / "link.onnx").symlink_to("/etc/hostname")
    (folder / "toy" / "loop.onnx").symlink_to("loop.onnx")
    text = json.dumps(whole)
    if rng.random() < 0.3:
        text = text.replace('"name"', '"name": "other", "name"', 1)
        name = f"{name} and a key twice"
    path.write_text(text)
    return f"file {name!r}"


def show_and_run(folder: Path) -> int:
    """Show the bundle in both ways and generate with it."""
    shown = commands("lvdm_rt", ["info", "./toy"], ["info", "./toy", "--json"])
    return shown or commands("lvdm_export", ["inspect", "./toy"]) or generate(folder)


def generate(folder: Path, backend: str = "cpu") -> int:
    """Generate a short video."""
    before = {path.name for path in folder.iterdir()}
    code = command(["generate", *FLAGS, "--backend", backend])
    kept = code == 1 and (folder / ".sky.npz.work").exists()  # clips to go on with, which is told
    outputs(folder, before, {"sky.npz": not code, "sky.npz.json": not code, ".sky.npz.work": kept})
    return code


def graph(folder: Path, rng: Rng) -> str:
    """Change a graph, its messages or its bytes, and the sha256 of it in the manifest."""
    toy = folder / "toy"
    name = ("encoder", "decoder", "predict", "interpolate")[rng.integers(4)]
    path = toy / f"{name}.onnx"
    if rng.random() < 0.4:
        data = bytearray(path.read_bytes())
        for place in rng.integers(len(data), size=rng.integers(1, 5)):
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        way = "bits"
    else:
        model = onnx.load(path)
        way = _changed(model, rng)
        path.write_bytes(model.SerializeToString())
    whole = json.loads((toy / "manifest.json").read_text())
    whole["graphs"][name]["sha256"] = file_sha256(path)
    (toy / "manifest.json").write_text(json.dumps(whole))
    return f"{name}: {way}"


def _changed(model: Any, rng: Rng) -> str:
    node = model.graph.node[rng.integers(len(model.graph.node))]
    tensor = model.graph.initializer[rng.integers(len(model.graph.initializer))]
    shape = model.graph.input[0].type.tensor_type.shape
    sizes = (0, -1, 1 << 31, 1 << 40, (1 << 63) - 1)
    way = int(rng.integers(9))
    if way == 0:
        node.op_type = (
            "Loop",
            "If",
            "Nothing",
            "\ud800".encode("utf-8", "replace").decode(),
            "Scan",
        )[rng.integers(5)]
    elif way == 1:
        node.domain = ("com.microsoft", "foreign", "x" * 10_000)[rng.integers(3)]
    elif way == 2:
        del tensor.dims[:]
        tensor.dims.extend([sizes[rng.integers(5)]] * int(rng.integers(1, 4)))
    elif way == 3:
        tensor.data_type = int(rng.integers(0, 40))
    elif way == 4:
        entry = shape.dim[rng.integers(len(shape.dim))]
        entry.dim_value = sizes[rng.integers(5)]
    elif way == 5:
        tensor.data_location = TensorProto.EXTERNAL
        places = ("../manifest.json", "/etc/passwd", "", "encoder.onnx.data", "encoder.onnx")
        for key, value in {"location": places[rng.integers(5)], "offset": "-1"}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    elif way == 6:
        model.opset_import[0].version = int(rng.integers(0, 1 << 30))
    elif way == 7:
        node.input[0] = node.output[0]  # a graph that waits for itself
    else:
        model.graph.node.extend([node] * int(rng.integers(1, 400)))
    return f"{way} of {node.name or node.op_type[:20]!r}"


KINDS = (
    Kind("manifest", prepare, manifest, show_and_run, daily=8),
    Kind("onnx", prepare, graph, generate, daily=8),
    Kind("onnx in openvino", prepare, graph, partial(generate, backend="openvino"), daily=1),
)
