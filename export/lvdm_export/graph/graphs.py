"""The graphs of a bundle as torch modules: networks plus everything the runtime leaves to them.

Pixels are uint8 outside, the latent normalisation z = scale * (mean + shift) is inside, masks are
spread over the frame, and every float input and output is float32 whatever the precision.
"""

from dataclasses import dataclass, replace
from typing import cast

import msgspec
import torch
from torch import Tensor, nn

from lvdm_engines.contract import MEAN, graph_tensors
from lvdm_engines.manifest import LatentFacts, ModelFacts, TensorSpec
from lvdm_export.nets.autoencoder2d import Autoencoder2d
from lvdm_export.nets.autoencoder3d import Autoencoder3d
from lvdm_export.nets.text import TextEncoder
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig

Autoencoder = Autoencoder3d | Autoencoder2d


class EncoderGraph(nn.Module):
    """Frames uint8 (b, f, h, w, 3) to normalised posterior means (b, c, t, h', w')."""

    def __init__(self, network: Autoencoder, latent: LatentFacts) -> None:
        super().__init__()
        self.network, self.latent = network, latent

    def forward(self, frames: Tensor) -> Tensor:
        """Encode frames."""
        # cast first: TensorRT does nothing else with bytes
        x = frames.float().permute(0, 4, 1, 2, 3) / 127.5 - 1  # (b, 3, f, h, w)
        if isinstance(self.network, Autoencoder3d):
            moments = self.network.encode(x)
        else:
            moments = _per_frame(self.network.encode, x)
        mean = moments.chunk(2, dim=1)[0]
        return self.latent.scale * (mean + self.latent.shift)


class DecoderGraph(nn.Module):
    """Normalised latents (b, c, t, h', w') to frames uint8 (b, f, h, w, 3), and their mean (b)."""

    def __init__(self, network: Autoencoder, latent: LatentFacts) -> None:
        super().__init__()
        self.network, self.latent = network, latent

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latents; frames are rounded to the nearest level and clamped."""
        z = latents / self.latent.scale - self.latent.shift
        if isinstance(self.network, Autoencoder3d):
            x = self.network.decode(z)
        else:
            x = _per_frame(self.network.decode, z)
        levels = ((x + 1) * 127.5).round().clamp(0, 255)  # (b, 3, f, h, w)
        mean = x.float().mean(dim=(1, 2, 3, 4))  # shows NaN and infinity, which bytes hide
        return levels.permute(0, 2, 3, 4, 1).to(torch.uint8), mean


def _per_frame(network: object, x: Tensor) -> Tensor:
    """Apply a 2D network to every frame of x (b, c, f, h, w)."""
    b, c, f, h, w = x.shape
    y = network(x.transpose(1, 2).reshape(b * f, c, h, w))  # type: ignore[operator]
    return cast("Tensor", y.reshape(b, f, *y.shape[1:]).transpose(1, 2))


class DenoiserGraph(nn.Module):
    """A denoiser under the names of the runtime's contract."""

    def __init__(self, network: UNet3d) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        mask: Tensor | None = None,
        noise_level: Tensor | None = None,
        context: Tensor | None = None,
        stride: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise in latents (b, c, t, h, w); the inputs are those of the network."""
        return cast("Tensor", self.network(latents, timestep, mask, noise_level, context, stride))


@dataclass(frozen=True)
class Graph:
    """A module with the names, types and shapes of what goes in and out.

    `vocabulary` is how many tokens it knows, if tokens go in.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    vocabulary: int = 1

    def example(self, batch: int, clip: int) -> dict[str, Tensor]:
        """Return zeros for every input, of these sizes where they are free."""
        return {
            spec.name: torch.zeros(sized(spec, batch, clip), dtype=getattr(torch, spec.dtype))
            for spec in self.inputs
        }


def sized(spec: TensorSpec, batch: int, clip: int) -> tuple[int, ...]:
    """Return the shape of a tensor that has these sizes where they are free."""
    free = {"b": batch, "t": clip}
    return tuple(free[n] if isinstance(n, str) else n for n in spec.shape)


def encoder_graph(network: Autoencoder, model: ModelFacts) -> Graph:
    """Wrap an autoencoder as the graph `encoder`."""
    inputs, _, outputs = graph_tensors("encoder", model)
    return Graph(EncoderGraph(network, model.latent), tuple(inputs), tuple(outputs))


def decoder_graph(network: Autoencoder, model: ModelFacts) -> Graph:
    """Wrap an autoencoder as the graph `decoder`."""
    inputs, _, outputs = graph_tensors("decoder", model)
    return Graph(DecoderGraph(network, model.latent), tuple(inputs), (*outputs, MEAN))


def with_few_latents(model: ModelFacts, most: int) -> ModelFacts:
    """Return a model of the same networks for smaller frames: at most so many latents a side."""
    (h, w), (_, rows, columns) = model.latent.size, model.downsample
    h, w = min(h, most), min(w, most)
    latent = msgspec.structs.replace(model.latent, size=(h, w))
    return msgspec.structs.replace(model, latent=latent, frame_size=(h * rows, w * columns))


def resized(graph: Graph, name: str, model: ModelFacts) -> Graph:
    """Return an autoencoder's graph for the frames of `model`; the network is the same."""
    inputs, _, outputs = graph_tensors(name, model)
    more = graph.outputs[len(outputs) :]
    return replace(graph, inputs=tuple(inputs), outputs=(*outputs, *more))


def text_encoder_graph(network: TextEncoder, model: ModelFacts) -> Graph:
    """Take a text encoder as the graph `text_encoder`."""
    inputs, _, outputs = graph_tensors("text_encoder", model)
    return Graph(network, tuple(inputs), tuple(outputs), network.config.vocabulary)


def denoiser_graph(network: UNet3d, names: tuple[str, ...], model: ModelFacts) -> Graph:
    """Wrap a denoiser as one graph that serves all of `names`; several clip lengths make t free."""
    required, optional, outputs = graph_tensors(names[0], model)
    present = _inputs_of(network.config)
    inputs = [spec for spec in (*required, *optional) if spec.name in present]
    inputs.sort(key=lambda spec: present.index(spec.name))
    if len(set().union(*map(model.clips, names))) > 1:
        inputs, outputs = _free_time(inputs), _free_time(outputs)
    return Graph(DenoiserGraph(network), tuple(inputs), tuple(outputs))


def _inputs_of(config: UNet3dConfig) -> list[str]:
    masked = config.in_channels == config.out_channels + 1
    return [
        "latents",
        "timestep",
        *(["mask"] if masked else []),
        *(["noise_level"] if config.num_classes is not None else []),
        *(["context"] if config.context_dim is not None else []),
        *(["stride"] if config.max_stride is not None else []),
    ]


def _free_time(specs: list[TensorSpec]) -> list[TensorSpec]:
    axes = {"latents": 2, "eps": 2, "mask": 1}
    return [
        TensorSpec(
            spec.name,
            spec.dtype,
            tuple("t" if axis == axes.get(spec.name) else n for axis, n in enumerate(spec.shape)),
        )
        for spec in specs
    ]
