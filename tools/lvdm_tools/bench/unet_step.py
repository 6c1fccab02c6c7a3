"""Speed and memory of paper-size networks on this machine's CPU.

    python -m lvdm_tools.bench.unet_step           everything: about 10 GiB and some minutes
    python -m lvdm_tools.bench.unet_step --small   the same steps on toy sizes, for a quick check

Prints how long the predictor takes to export and verify and what memory that needs; the median
time of a denoiser step in ONNX Runtime and of the same network in the authors' layout in torch,
measured alternately; and the peak memory of the decoder. Each phase imports torch where it needs
it, so that the decoder's memory is without it.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import GraphSource, file_sha256
from lvdm_engines.command_line import HELP
from lvdm_engines.manifest import GraphFacts
from lvdm_engines.opening import load_backend
from lvdm_export.verify.probes import make_probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from lvdm_engines.manifest import ModelFacts
    from lvdm_engines.session import Session
    from lvdm_export.nets.unet3d import UNet3d


@dataclass(frozen=True)
class Options:
    """What every phase is told; files of one phase lie in `folder` for the next ones."""

    folder: Path
    model: str
    rounds: int
    threads: int | None


def make_checkpoint(options: Options) -> dict[str, Any]:
    """Write the predictor with random weights."""
    from lvdm_export.config.model_json import save_model
    from lvdm_export.nets.unet3d import UNet3d
    from lvdm_tools.bench.models import random_network, sizes

    made_of = sizes(options.model)
    network = random_network(UNet3d(made_of.unet), 1)
    _, weights = save_model(options.folder, made_of.records()[0], network)
    return {
        "parameters_m": sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        "checkpoint_gib": weights.stat().st_size / 2**30,
    }


def export_predictor(options: Options) -> dict[str, Any]:
    """Export and verify the predictor as `lvdm-export build-engines` does."""
    from lvdm_export.graph.export import ExportTarget, export_graph
    from lvdm_export.graph.graphs import denoiser_graph

    start = time.monotonic()
    target = ExportTarget(options.folder, _model(options), "fp32", partial(click.echo, err=True))
    graph = denoiser_graph(_load_predictor(options), ("predict",), target.model)
    exported = export_graph(target, graph, ("predict",))
    (options.folder / "predict.json").write_bytes(msgspec.json.encode(exported.facts))
    shown = {k: v for k, v in exported.parity["predict"].items() if not isinstance(v, dict)}
    return {"seconds": time.monotonic() - start, "gflop": exported.facts.gflop, **shown}


def time_steps(options: Options) -> dict[str, Any]:
    """Time a step in ONNX Runtime and in torch in the authors' layout, alternately."""
    import torch

    from lvdm_tools.bench import official_layout

    if options.threads:
        torch.set_num_threads(options.threads)
    network, session = _load_predictor(options), _open(options, "predict")
    feeds = make_probes("predict", session.inputs, _model(options), 1)[0].rows(0, 1)
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}

    def eager() -> Any:
        with torch.inference_mode():
            return official_layout.forward(network, **tensors).numpy()

    def engine() -> Any:
        return session.run(feeds)["eps"]

    expected, actual = eager(), engine()
    ort, torch_eager = _alternate(engine, eager, options.rounds)
    return {
        "onnxruntime_ms": ort,
        "torch_official_layout_ms": torch_eager,
        "ratio": torch_eager / ort,
        "max_rel": float(np.abs(actual - expected).max() / np.abs(expected).max()),
    }


def export_decoder(options: Options) -> dict[str, Any]:
    """Export the decoder for one clip of latents, unverified."""
    from lvdm_export.graph.graphs import decoder_graph
    from lvdm_export.graph.onnx_file import write_onnx
    from lvdm_export.nets.autoencoder3d import Autoencoder3d
    from lvdm_export.nets.layers import bake
    from lvdm_tools.bench.models import random_network, sizes

    network = random_network(Autoencoder3d(sizes(options.model).autoencoder), 2)
    start = time.monotonic()
    graph = decoder_graph(network, _model(options))
    bake(graph.module)
    path = options.folder / "decoder.onnx"
    write_onnx(graph, path)
    facts = GraphFacts(path.name, file_sha256(path), "fp32", graph.inputs, graph.outputs)
    path.with_suffix(".json").write_bytes(msgspec.json.encode(facts))
    return {"seconds": time.monotonic() - start}


def decode(options: Options) -> dict[str, Any]:
    """Decode one clip as the runtime does: no torch in this process."""
    session = _open(options, "decoder")
    shape = [1, *(int(n) for n in session.inputs[0].shape[1:])]  # (1, c, t, h, w)
    latents = np.random.default_rng(0).standard_normal(shape, np.float32)
    start = time.monotonic()
    frames = session.run({"latents": latents})["frames"]
    seconds = time.monotonic() - start
    return {"latents": shape, "frames": list(frames.shape), "seconds": seconds}


PHASES: dict[str, Callable[[Options], dict[str, Any]]] = {
    "make-checkpoint": make_checkpoint,
    "export-predictor": export_predictor,
    "time-steps": time_steps,
    "export-decoder": export_decoder,
    "decode": decode,
}


@click.command(context_settings=HELP)
@click.option("--small", is_flag=True, help="Toy sizes.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Timed steps. Default: 5.")
@click.option("--threads", type=click.IntRange(1), help="Of every run. Default: all cores.")
@click.option("--only", type=click.Choice(list(PHASES)), help="Repeat one phase in --folder.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the files here.")
def main(only: str | None, folder: Path | None, *, small: bool, **settings: Any) -> None:
    """Measure speed and memory of paper-size networks on this machine's CPU."""
    with tempfile.TemporaryDirectory() as temporary:
        model = "tiny" if small else "sky-predict"
        options = Options(folder or Path(temporary), model, **settings)
        options.folder.mkdir(parents=True, exist_ok=True)
        for phase in [only] if only else PHASES:
            # in a process of its own, so that peak memory is that phase's
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                told = process.submit(_measured, phase, options).result()
            click.echo(f"{phase}: {told}")


def _measured(phase: str, options: Options) -> str:
    found = PHASES[phase](options)
    found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in found.items()
    )


def _model(options: Options) -> ModelFacts:
    from lvdm_export.config.model_facts import model_facts
    from lvdm_tools.bench.models import sizes

    denoiser, autoencoder = sizes(options.model).records()
    return model_facts({"predict": denoiser}, autoencoder)


def _load_predictor(options: Options) -> UNet3d:
    from lvdm_export.checkpoint.keys import open_checkpoint
    from lvdm_export.checkpoint.weights import load_denoiser
    from lvdm_tools.bench.models import sizes

    checkpoint = open_checkpoint(options.folder / "model.safetensors")
    return load_denoiser(sizes(options.model).unet, checkpoint, ema=False)


def _open(options: Options, graph: str) -> Session:
    facts = msgspec.json.decode((options.folder / f"{graph}.json").read_bytes(), type=GraphFacts)
    source = GraphSource(graph, facts, options.folder)
    return load_backend("cpu").open(source, SessionOptions(threads=options.threads))


def _alternate(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> list[float]:
    """Run both in turn; returns the median milliseconds of each."""
    taken: dict[Callable[[], Any], list[float]] = {one: [], other: []}
    for _ in range(rounds):
        for run, times in taken.items():
            start = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) for times in taken.values()]


if __name__ == "__main__":
    main()
