"""Speed and memory of paper-size networks on this machine.

    python scripts/bench_unet_step.py            everything: about 10 GiB and some minutes
    python scripts/bench_unet_step.py --small    the same steps on toy sizes, for a quick check

Prints how long the predictor takes to export and verify and what memory that needs; the median
time of a denoiser step in ONNX Runtime and of the same network in the authors' layout in torch,
measured alternately; and the peak memory of the decoder. Weights are made from parameter names.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODEL = {
    "frame_size": [256, 256],
    "frames_per_latent": 4,
    "latent": {"channels": 4, "size": [32, 32], "scale": 0.33422927, "shift": 1.4606637},
    "schedule": {"kind": "sqrt-linear", "steps": 1000, "beta_start": 0.0015, "beta_end": 0.0155},
    "predict": {"clip": 4, "condition": 1, "stride": 4},
    "decode_window": 4,
    "noise_levels": 250,
}
UNET = {
    "in_channels": 5,
    "out_channels": 4,
    "model_channels": 256,
    "num_res_blocks": 3,
    "channel_mult": (1, 2, 3, 4),
    "attention_resolutions": (8, 4, 2),
    "num_heads": 4,
    "temporal_length": 4,
    "num_classes": 251,
}
SMALL = {
    "model": {"frame_size": [64, 64], "latent": MODEL["latent"] | {"size": [8, 8]}},
    "unet": {"model_channels": 32, "num_res_blocks": 1, "channel_mult": (1, 2)},
}


def main() -> None:
    """Run each phase in a process of its own, so that peak memory is that phase's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="toy sizes")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, help="of both kinds of steps; default: all cores")
    parser.add_argument("--only", choices=list(PHASES), help="repeat one phase in --folder")
    parser.add_argument("--folder", type=Path, help="keep the files here")
    parser.add_argument("--phase", choices=list(PHASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        print(json.dumps(PHASES[options.phase](options) | {"peak_gib": _peak_gib()}))  # noqa: T201 - a script
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for phase in [options.only] if options.only else PHASES:
            command = [sys.executable, __file__, "--phase", phase, "--folder", str(folder)]
            command += ["--rounds", str(options.rounds), *(["--small"] if options.small else [])]
            command += ["--threads", str(options.threads)] if options.threads else []
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this file
            print(f"{phase}: {_line(json.loads(done.stdout.splitlines()[-1]))}", flush=True)  # noqa: T201 - a script


def make_checkpoint(options: argparse.Namespace) -> dict[str, Any]:
    """Write the predictor's weights under the authors' names."""
    import torch

    from lvdm_export.checkpoint.weights import build

    network = build(_unet_config(options))
    state = {}
    for name, parameter in network.named_parameters():
        weight = _rule(name, tuple(parameter.shape))
        state[f"model.diffusion_model.{name}"] = torch.from_numpy(weight)
    torch.save({"state_dict": state}, options.folder / "predict.ckpt")
    return {
        "parameters_m": sum(tensor.numel() for tensor in state.values()) / 1e6,
        "checkpoint_gib": (options.folder / "predict.ckpt").stat().st_size / 2**30,
    }


def export_predictor(options: argparse.Namespace) -> dict[str, Any]:
    """Export and verify the predictor as `lvdm-export build-engines` does."""
    import msgspec

    from lvdm_export.checkpoint.keys import open_checkpoint
    from lvdm_export.checkpoint.weights import load_denoiser
    from lvdm_export.graph.export import ExportTarget, export_graph
    from lvdm_export.graph.graphs import denoiser_graph

    start = time.monotonic()
    checkpoint = open_checkpoint(options.folder / "predict.ckpt")
    network = load_denoiser(_unet_config(options), checkpoint, ema=False)
    target = ExportTarget(options.folder, _model(options), "fp32", _say)
    exported = export_graph(
        target, denoiser_graph(network, ("predict",), target.model), ("predict",)
    )
    (options.folder / "predict.json").write_bytes(msgspec.json.encode(exported.facts))
    shown = {k: v for k, v in exported.parity["predict"].items() if not isinstance(v, dict)}
    return {"seconds": time.monotonic() - start, "gflop": exported.facts.gflop, **shown}


def time_steps(options: argparse.Namespace) -> dict[str, Any]:
    """Time a step in ONNX Runtime and in torch in the authors' layout, alternately."""
    import official_layout
    import torch

    from lvdm_export.checkpoint.keys import open_checkpoint
    from lvdm_export.checkpoint.weights import load_denoiser

    if options.threads:
        torch.set_num_threads(options.threads)
    checkpoint = open_checkpoint(options.folder / "predict.ckpt")
    network = load_denoiser(_unet_config(options), checkpoint, ema=False)
    session = _open_predictor(options)
    feeds = _step_feeds(options)
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}

    def eager() -> Any:
        with torch.inference_mode():
            return official_layout.forward(network, **tensors).numpy()

    def engine() -> Any:
        return session.run(feeds)["eps"]

    expected, actual = eager(), engine()
    difference = float(np.abs(actual - expected).max() / np.abs(expected).max())
    times = _alternate({"ort": engine, "torch": eager}, options.rounds)
    ort, torch_eager = (statistics.median(times[kind]) for kind in ("ort", "torch"))
    return {
        "onnxruntime_ms": 1e3 * ort,
        "torch_official_layout_ms": 1e3 * torch_eager,
        "ratio": torch_eager / ort,
        "max_rel": difference,
    }


def export_decoder(options: argparse.Namespace) -> dict[str, Any]:
    """Export the paper's decoder for one clip of latents."""
    import torch

    from lvdm_export.graph.graphs import decoder_graph
    from lvdm_export.graph.onnx_file import write_onnx
    from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
    from lvdm_export.nets.layers import bake

    network = Autoencoder3d(Autoencoder3dConfig()).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(_rule(name, tuple(parameter.shape))))
    start = time.monotonic()
    graph = decoder_graph(network, _model(options))
    bake(graph.module)
    write_onnx(graph, options.folder / "decoder.onnx")
    return {"seconds": time.monotonic() - start}


def decode(options: argparse.Namespace) -> dict[str, Any]:
    """Decode one clip, as the runtime would: no torch in this process."""
    import onnxruntime

    model = _model(options)
    shape = (1, model.latent.channels, model.decode_window, *model.latent.size)
    latents = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    settings = onnxruntime.SessionOptions()
    settings.enable_mem_pattern = False
    path = str(options.folder / "decoder.onnx")
    session = onnxruntime.InferenceSession(path, settings, ["CPUExecutionProvider"])
    start = time.monotonic()
    frames = session.run(None, {"latents": latents})[0]
    return {
        "latents": list(shape),
        "frames": list(frames.shape),
        "seconds": time.monotonic() - start,
    }


PHASES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "make-checkpoint": make_checkpoint,
    "export-predictor": export_predictor,
    "time-steps": time_steps,
    "export-decoder": export_decoder,
    "decode": decode,
}


def _rule(name: str, shape: tuple[int, ...]) -> Any:
    """Make a weight from its name: a seeded normal scaled by its fan-in, near 1 for norms."""
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    n = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) > 1:
        return n * np.float32(0.8 / np.sqrt(np.prod(shape[1:])))
    offset = np.float32(1) if name.endswith("weight") else np.float32(0)
    return offset + np.float32(0.1) * n


def _unet_config(options: argparse.Namespace) -> Any:
    from lvdm_export.nets.unet3d import UNet3dConfig

    return UNet3dConfig(**(UNET | (SMALL["unet"] if options.small else {})))


def _model(options: argparse.Namespace) -> Any:
    import msgspec

    from lvdm_engines.manifest import ModelFacts

    return msgspec.convert(MODEL | (SMALL["model"] if options.small else {}), ModelFacts)


def _open_predictor(options: argparse.Namespace) -> Any:
    import msgspec

    from lvdm_engines.backends.backend import SessionOptions
    from lvdm_engines.bundle import GraphSource
    from lvdm_engines.manifest import GraphFacts
    from lvdm_engines.opening import load_backend

    facts = msgspec.json.decode((options.folder / "predict.json").read_bytes(), type=GraphFacts)
    source = GraphSource("predict", facts, options.folder)
    return load_backend("cpu").open(source, SessionOptions(threads=options.threads))


def _step_feeds(options: argparse.Namespace) -> dict[str, Any]:
    model = _model(options)
    shape = (1, model.latent.channels, model.predict.clip, *model.latent.size)
    return {
        "latents": np.random.default_rng(0).standard_normal(shape).astype(np.float32),
        "timestep": np.array([500]),
        "mask": np.array([[1, 0, 0, 0]], np.float32),
        "noise_level": np.array([100]),
    }


def _alternate(kinds: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, run in kinds.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - a script


def _line(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in found.items()
    )


if __name__ == "__main__":
    main()
