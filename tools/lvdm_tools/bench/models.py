"""The models that speed is measured with: sizes of training's ready configs, random weights.

The weights' magnitudes keep activations near 1: speed and rounding do not depend on training, and
nothing has to be downloaded.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
import yaml
from torch import nn

from lvdm_engines.bundle import Bundle, load_bundle
from lvdm_engines.errors import OptionsError
from lvdm_engines.manifest import (
    DENOISERS,
    InterpolateFacts,
    Manifest,
    Precision,
    PredictFacts,
    ScheduleFacts,
)
from lvdm_export.build import build
from lvdm_export.config.model_json import ModelRecord, save_model
from lvdm_export.graph.export import count_gflop
from lvdm_export.graph.graphs import (
    DecoderGraph,
    DenoiserGraph,
    decoder_graph,
    denoiser_graph,
    encoder_graph,
)
from lvdm_export.inputs import BuildOptions, Source
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.layers import bake
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig
from lvdm_export.verify.probes import clip_of

_CONFIGS = Path(__file__).parents[1] / "configs"
_MODELS = {  # configs of the denoiser and the autoencoder
    "sky": ("sky-interpolate", "sky-autoencoder"),
    "sky-predict": ("sky-predict", "sky-autoencoder"),
    "sky-tiny": ("sky-tiny", "sky-tiny-autoencoder"),
    "tiny": ("toy", "toy-autoencoder"),
}
_FACTS: dict[str, Any] = {  # the paper's, for models of every size
    "scale": 0.33422927,
    "shift": 1.4606637,
    "schedule": ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155),
    "predict": PredictFacts(clip=4, condition=1, stride=4),
    "interpolate": InterpolateFacts(clip=5),
}

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Sizes:
    """Networks of one size, and the height and width of their frames."""

    unet: UNet3dConfig
    autoencoder: Autoencoder3dConfig
    frame: tuple[int, int]

    def records(self) -> tuple[ModelRecord, ModelRecord]:
        """Describe the denoiser, which both predicts and fills in, and the autoencoder."""
        unet, autoencoder = dataclasses.asdict(self.unet), dataclasses.asdict(self.autoencoder)
        levels = None if self.unet.num_classes is None else self.unet.num_classes - 1
        return (
            ModelRecord(kind="unet3d", config=unet, noise_levels=levels, **_FACTS),
            ModelRecord(kind="autoencoder3d", config=autoencoder, frame_size=self.frame),
        )


def sizes(model: str) -> Sizes:
    """Read the sizes of one of the models that speed is measured with."""
    run, other = (
        yaml.safe_load((_CONFIGS / f"{name}.yaml").read_text("utf-8")) for name in _MODELS[model]
    )
    return Sizes(
        msgspec.convert(run["network"], UNet3dConfig),
        msgspec.convert(other["network"], Autoencoder3dConfig),
        tuple(run["data"]["size"]),
    )


def random_network(network: N, seed: int) -> N:
    """Fill every parameter, zero-initialised ones too, so that variances stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            inputs = parameter[0].numel() if parameter.dim() > 1 else 64
            parameter.normal_(0, 0.8 / inputs**0.5, generator=generator)
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.add_(1)
    return network.eval()


def networks(of: Sizes) -> tuple[UNet3d, Autoencoder3d]:
    """Return the denoiser and the autoencoder, always with the same weights."""
    return random_network(UNet3d(of.unet), 1), random_network(Autoencoder3d(of.autoencoder), 2)


@dataclass(frozen=True)
class Likeness:
    """Networks of a bundle's sizes with random weights, and GFLOP of each graph at batch 1."""

    unet: UNet3d
    autoencoder: Autoencoder3d
    gflop: dict[str, float]


def likeness(manifest: Manifest) -> Likeness:
    """Return networks of a bundle's sizes: those ready ones that have its arithmetic.

    Exported graphs do not keep the names of their weights, on whose values speed does not depend.

    Raises OptionsError: there are none.
    """
    for name in _MODELS:
        made_of = sizes(name)
        if made_of.frame == manifest.model.frame_size:
            pair = networks(made_of)
            work = gflops(manifest, *pair)
            if all(_counted(manifest, work, graph) for graph in work):
                return Likeness(*pair, work)
    raise OptionsError(
        f"{manifest.name} is none of the ready models ({', '.join(_MODELS)}): torch is not "
        "measured beside it; bench one that was exported from those configs"
    )


def gflops(manifest: Manifest, unet: UNet3d, autoencoder: Autoencoder3d) -> dict[str, float]:
    """Count the work of every graph on one clip or window, without the text encoder."""
    model = manifest.model
    names = tuple(name for name in DENOISERS if name in manifest.graphs)
    clips = {name: clip_of(model, name) for name in names}
    joint = denoiser_graph(unet, names, model)
    counts = {clip: count_gflop(joint, clip) for clip in set(clips.values())}
    found = {name: counts[clip] for name, clip in clips.items()}
    for name, make in (("decoder", decoder_graph), ("encoder", encoder_graph)):
        if name in manifest.graphs:
            found[name] = count_gflop(make(autoencoder, model), model.decode_window)
    return found


def _counted(manifest: Manifest, work: dict[str, float], graph: str) -> bool:
    """Tell whether the manifest counts the same, which it does for a file's longest clip."""
    facts = manifest.graphs[graph]
    longest = max(work[name] for name, other in manifest.graphs.items() if other == facts)
    return facts.gflop in (None, float(f"{longest:.4g}"))


def torch_graphs(model: str, manifest: Manifest) -> dict[str, nn.Module]:
    """Return the denoiser and decoder as torch modules with the inputs of their graphs."""
    unet, autoencoder = networks(sizes(model))
    bake(unet)
    bake(autoencoder)
    return {
        "predict": DenoiserGraph(unet),
        "decoder": DecoderGraph(autoencoder, manifest.model.latent),
    }


def bundle_of(
    name: str, precision: Precision, folder: Path, report: Callable[[str], None]
) -> Bundle:
    """Export a model into `folder`, once; a bundle of the same networks there is used again."""
    made_of = sizes(name)
    out = folder / f"{name}-{precision}-{_key(made_of, precision)}"
    if (out / "manifest.json").is_file():
        return load_bundle(out)
    denoiser, autoencoder = (
        Source(*save_model(folder / f"{name}-checkpoints" / record.kind, record, network))
        for record, network in zip(made_of.records(), networks(made_of), strict=True)
    )
    options = BuildOptions(
        denoisers={"predict": denoiser, "interpolate": denoiser},
        autoencoder=autoencoder.checkpoint,
        out=out,
        precision=precision,
        name=f"{name}-{precision}",
    )
    return build(options, report)


def _key(of: Sizes, precision: Precision) -> str:
    """Return what changes with the networks and with the code that exports them."""
    made_of = (repr(of), precision, metadata.version("lvdm-rt"))
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
