"""A bundle of graphs that only rearrange and scale, and a way to run the command on it."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import toy as toy_models

from lvdm_engines.bundle import file_sha256
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.contract import graph_tensors
from lvdm_engines.manifest import (
    Defaults,
    GraphFacts,
    LatentFacts,
    ScheduleFacts,
)

onnx = pytest.importorskip("onnx")

MODEL = toy_models.model_facts(
    latent=LatentFacts(channels=2, size=(2, 2), scale=1.0, shift=0.0),
    schedule=ScheduleFacts("sqrt-linear", 100, 0.0015, 0.0155),
    noise_levels=50,
)
# An interrupt may come between the opening of a file and its owner; the process ends then anyway.
_WARNINGS = ("-W", "error", "-W", "ignore::ResourceWarning")
BLOCKS = [0, 4, 4, 2, 8, 2, 8, 3]  # (b, t, 4 frames, h, 8 rows, w, 8 columns, colour)


def encoder_nodes() -> tuple[list[object], dict[str, np.ndarray]]:
    """Both channels: mean of a block of pixels, from 0..255 to -1..1."""
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["frames"], ["pixels"], to=onnx.TensorProto.FLOAT),
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
    node = onnx.helper.make_node
    nodes = [
        node("ReduceMean", ["latents", "axis"], ["means"], keepdims=0),
        node("Add", ["means", "one"], ["shifted"]),
        node("Mul", ["shifted", "half"], ["levels"]),
        node("Clip", ["levels", "zero", "most"], ["clipped"]),
        node("Round", ["clipped"], ["rounded"]),
        node("Cast", ["rounded"], ["bytes"], to=onnx.TensorProto.UINT8),
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
    node = onnx.helper.make_node
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


def write_graph(folder: Path, name: str, nodes: list[object], constants: object) -> GraphFacts:
    inputs, _, outputs = graph_tensors(name, MODEL)
    path = folder / f"{name}.onnx"
    arrays = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    toy_models.write_graph(path, nodes, inputs, outputs, arrays)
    onnx.checker.check_model(path)
    return GraphFacts(path.name, file_sha256(path), "fp32", tuple(inputs), tuple(outputs))


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(weight: float = 0.7) -> Path:
        target = tmp_path_factory.mktemp("bundles") / "toy"
        graphs = {
            "encoder": encoder_nodes(),
            "decoder": decoder_nodes(),
            "predict": denoiser_nodes(weight),
            "interpolate": denoiser_nodes(weight),
        }
        with BundleWriter(target) as writer:
            facts = {name: write_graph(writer.path, name, *parts) for name, parts in graphs.items()}
            defaults = Defaults("ddim", 5, 1.0, guidance=0.1, noise_level=10, fps=8.0)
            writer.finish(
                toy_models.manifest(name="toy", model=MODEL, graphs=facts, defaults=defaults)
            )
        return target

    return make


@pytest.fixture(scope="session")
def toy(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle()


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `lvdm-rt` in this process, in a directory of its own: (exit code, stdout, stderr)."""
    from lvdm_rt import cli

    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["lvdm-rt", *words])
        code = cli.run(words)
        return code, *capfd.readouterr()

    return command


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `lvdm-rt` as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        code = "import sys; from lvdm_rt.cli import main; sys.argv[0] = 'lvdm-rt'; main()"
        process = subprocess.Popen(
            [sys.executable, *_WARNINGS, "-c", code, *map(str, arguments)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture(autouse=True)
def _what_loggers_say_is_restored() -> Iterator[None]:
    loggers = [logging.getLogger(n) for n in ("lvdm_engines", "lvdm_engines.opening", "lvdm_rt")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def settings_of() -> Callable[[Path], dict[str, object]]:
    def settings_of(path: Path) -> dict[str, object]:
        return json.loads(path.with_name(f"{path.name}.json").read_text())

    return settings_of
