"""Every graph that we export compiles in TensorRT-RTX, which needs no GPU to do so.

TensorRT reads ONNX with the same parser. What the plans compute is for `lvdm-tools gpu-check`.
"""

import shutil

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
torch = pytest.importorskip("torch")

from lvdm_engines.backends.library import load_library
from lvdm_engines.backends.profiles import graph_files, split
from lvdm_engines.backends.trt_build import Job, compile_plan
from lvdm_engines.bundle import builtin_bundles, load_bundle
from lvdm_engines.manifest import GraphFacts, LatentFacts, TensorSpec
from lvdm_engines.plan_facts import PlanOptions, Range
from lvdm_engines.plans import build_plans
from lvdm_export.config_networks import read_autoencoder2d, read_unet
from lvdm_export.graphs import DecoderGraph, DenoiserGraph, EncoderGraph, Graph
from lvdm_export.nets.autoencoder2d import Autoencoder2d
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.layers import bake, to_half
from lvdm_export.nets.unet3d import UNet3d
from lvdm_export.onnx_file import write_onnx
from lvdm_export.section import Section
from lvdm_tools.gpu_check_models import bundle_of

UNETS = ("unet_short", "unet_pred", "unet_interp", "unet_t2v")
AUTOENCODERS = ("ae3d_488", "ae3d_244", "ae2d")
WIDE = (Range(1, 8, 32),)
QUICK = {("unet_pred", "fp16"), *((n, p) for n in ("ae3d_244", "ae2d") for p in ("fp32", "fp16"))}
LATENT = LatentFacts(channels=4, size=(1, 1), scale=0.5, shift=1.25)  # the size plays no part


def spec(name, array):
    return TensorSpec(name, str(array.dtype), ("b", *array.shape[1:]))


def denoiser(case, precision):
    params = {key: value for key, value in case.config.items() if key != "kind"}
    params.setdefault("use_temporal_transformer", False)
    network = UNet3d(read_unet(Section({"params": params}, "golden")))
    arrays = case.arrays
    masked = "mask" in arrays
    feeds = {"latents": arrays["x"][:, :-1] if masked else arrays["x"], "timestep": arrays["t"]}
    if masked:
        feeds |= {"mask": arrays["mask"], "noise_level": arrays["s"]}
    if "context" in arrays:
        feeds["context"] = arrays["context"]
    module = DenoiserGraph(cast(network, case, precision))
    return Graph(module, specs(feeds), (spec("eps", arrays["eps"]),))


def autoencoder(case, precision, part):
    config, arrays = case.config, case.arrays
    if config["kind"] == "ae2d":
        raw = {k: v for k, v in config.items() if k not in {"kind", "embed_dim", "double_z"}}
        network = Autoencoder2d(read_autoencoder2d(Section(raw, "golden"), config["embed_dim"]))
        frames, z = arrays["x"][:, :, None], arrays["moments"][:, :4, None]
    else:
        fields = ("n_hiddens", "z_channels", "embed_dim")
        network = Autoencoder3d(
            Autoencoder3dConfig(
                downsample=tuple(config["downsample"]), **{name: config[name] for name in fields}
            )
        )
        frames, z = arrays["x"], arrays["z"]
    latents = (spec("latents", z),)
    pixels = (spec("frames", np.moveaxis(frames, 1, -1).astype(np.uint8)),)  # (b, f, h, w, 3)
    network = cast(network, case, precision)
    if part == "encoder":
        return Graph(EncoderGraph(network, LATENT), pixels, latents)
    return Graph(DecoderGraph(network, LATENT), latents, pixels)


def cast(network, case, precision):
    network.load_state_dict({key: torch.from_numpy(a) for key, a in case.weights.items()})
    return bake(to_half(network) if precision == "fp16" else network).eval()


def specs(feeds):
    return tuple(spec(name, array) for name, array in feeds.items())


def cases(names):
    """Exporting and compiling a denoiser takes about 15 s; most of them are marked slow."""
    return [
        pytest.param(n, p, marks=[] if (n, p) in QUICK else [pytest.mark.slow])
        for n in names
        for p in ("fp32", "fp16")
    ]


def compiled(graph, precision, folder, batches=WIDE):
    path = folder / "graph.onnx"
    write_onnx(graph, path)
    facts = GraphFacts(path.name, "0" * 64, precision, graph.inputs, graph.outputs)
    profiles = tuple({"b": batch} for batch in batches)
    job = Job("graph", path, facts, profiles, PlanOptions())
    return compile_plan(job, load_library("tensorrt-rtx"))


@pytest.mark.parametrize(("name", "precision"), cases(UNETS))
def test_every_golden_denoiser_compiles_with_dynamic_batch(golden, name, precision, tmp_path):
    assert compiled(denoiser(golden(name), precision), precision, tmp_path).nbytes > 100_000


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize(("name", "precision"), cases(AUTOENCODERS))
def test_every_golden_autoencoder_compiles_with_dynamic_batch(
    golden, name, part, precision, tmp_path
):
    graph = autoencoder(golden(name), precision, part)
    assert compiled(graph, precision, tmp_path).nbytes > 100_000


def test_a_wide_batch_range_compiles_as_several_profiles(golden, tmp_path):
    graph = autoencoder(golden("ae2d"), "fp16", "encoder")
    one = compiled(graph, "fp16", tmp_path)
    several = compiled(graph, "fp16", tmp_path, split(Range(1, 8, 32)))
    assert several.nbytes > one.nbytes


@pytest.mark.parametrize("name", list(builtin_bundles()))
def test_every_builtin_bundle_compiles_and_is_not_compiled_twice(name, tmp_path):
    shutil.copytree(builtin_bundles()[name], tmp_path / name)
    bundle = load_bundle(tmp_path / name)
    options = PlanOptions(batch=Range(1, 2, 8))
    built = build_plans(bundle, "tensorrt-rtx", options)
    assert [b.graphs for b in built] == graph_files(bundle.manifest)
    assert all(b.plan.read() for b in built)
    assert all(b.reused for b in build_plans(bundle, "tensorrt-rtx", options))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_of_the_builtin_models_size_compiles_whole(precision, tmp_path):
    bundle = bundle_of("sky-tiny", precision, tmp_path, lambda line: None)
    built = build_plans(bundle, "tensorrt-rtx", PlanOptions(batch=Range(1, 2, 8)))
    assert sorted(b.graphs for b in built) == [
        ("decoder",),
        ("encoder",),
        ("interpolate", "predict"),
    ]
