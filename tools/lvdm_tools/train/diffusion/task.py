"""Training of the denoiser: L_simple on eps over the frames that are not given."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from lvdm_engines.errors import ConfigError
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig
from lvdm_rt.diffusion.schedule import make_schedule
from lvdm_tools.train import model_json as modelfile
from lvdm_tools.train import sheets
from lvdm_tools.train.config import ClipKind, DiffusionRun
from lvdm_tools.train.diffusion import preview
from lvdm_tools.train.diffusion.clips import ClipMaker, Example, given
from lvdm_tools.train.diffusion.latents import Latents
from lvdm_tools.train.diffusion.text import PromptedUNet, Prompts, probe_context
from lvdm_tools.train.draws import DrawStream, generator
from lvdm_tools.train.learner import Batch, Learner
from lvdm_tools.train.model_json import FrozenDecoder
from lvdm_tools.train.networks import build, check_affordable, network_config

Array = NDArray[np.float32]
Clips = NDArray[np.uint8]

_PREVIEW_ROWS = 3


class DiffusionTask:
    """What the loop trains; see `loop.Task`.

    Given frames carry no noise of the current timestep, so their eps cannot be predicted; they
    are left out of the loss, which is a mean over all other values. `initial` are the weights to
    start from, of a network of the same sizes.
    """

    def __init__(
        self,
        run: DiffusionRun,
        latents: Latents,
        decoder: FrozenDecoder,
        fabric: Fabric,
        initial: UNet3d | None = None,
        text: Prompts | None = None,
    ) -> None:
        self.run = run
        self.latents = latents
        self.decoder = decoder
        self.fabric = fabric
        self.text = text
        self.tokens = None if text is None else text.tokens(["", *latents.captions])
        self.config = unet_config(run, decoder.autoencoder.config.embed_dim, fabric.device)
        self.masked = self.config.in_channels > decoder.autoencoder.config.embed_dim
        table = run.schedule
        schedule = make_schedule(table.kind, table.steps, table.beta_start, table.beta_end)
        self.clips = ClipMaker(
            latents.sequences,
            run.clips,
            schedule,
            run.noise_levels,
            run.seed,
            run.clean_conditions,
        )
        self.alpha_bar = torch.from_numpy(schedule.alpha_bar).float().to(fabric.device)
        network: nn.Module = self._network(initial)
        if text is not None:
            network = PromptedUNet(cast("UNet3d", network), text.encoder)
        self.learners: Mapping[str, Learner] = {
            "denoiser": Learner(fabric, network, run.optimizer, steps=run.steps, ema=run.ema)
        }

    def _network(self, initial: UNet3d | None) -> UNet3d:
        torch.manual_seed(self.run.seed)
        network = UNet3d(self.config)
        if initial is not None:
            with torch.no_grad():
                for name, parameter in initial.named_parameters():
                    network.get_parameter(name).copy_(parameter)
        if self.config.prediction == "v":
            network.velocity.alpha_bar.copy_(self.alpha_bar)
        return network

    def batch(self, step: int) -> Batch:
        """Noised clips of this process's share of a step."""
        mine = range(self.fabric.global_rank, self.run.batch, self.fabric.world_size)
        examples = [self.clips.example(step, item) for item in mine]
        tokens = {} if self.tokens is None else {"tokens": self._prompts(step, mine, examples)}
        return tokens | {
            "x": torch.from_numpy(np.stack([e.x for e in examples])),
            "eps": torch.from_numpy(np.stack([e.eps for e in examples])),
            "mask": torch.from_numpy(np.stack([e.mask for e in examples])),
            "timestep": torch.tensor([e.timestep for e in examples]),
            "noise_level": torch.tensor([e.noise_level for e in examples]),
            "stride": torch.tensor([e.stride for e in examples]),
        }

    def _prompts(self, step: int, items: Sequence[int], examples: Sequence[Example]) -> Tensor:
        """Tokens int64 (b, l) of the clips' captions, or of nothing for a share of them."""
        assert self.run.text is not None and self.tokens is not None  # noqa: S101 PT018
        draws = [generator(self.run.seed, DrawStream.CAPTION, step, i).random() for i in items]
        rows = [
            0 if draw < self.run.text.dropped else 1 + example.sequence
            for draw, example in zip(draws, examples, strict=True)
        ]
        return torch.from_numpy(self.tokens[rows])

    def update(self, batch: Batch, step: int) -> dict[str, float]:
        """Take one step on ‖ε − ε_θ(x, t, m, s)‖ over the frames with m = 0.

        For a network that predicts v, on ‖v − v_θ‖ = ‖ε − ε_θ‖ / sqrt(ᾱ).
        """
        learner = self.learners["denoiser"]
        predicted = self._predict(learner.module, batch)
        error = batch["eps"] - predicted
        if self.config.prediction == "v":
            error = error / self.alpha_bar[batch["timestep"]].sqrt()[:, None, None, None, None]
        error = error.square() if self.run.loss == "mse" else error.abs()
        weight = 1.0 - batch["mask"][:, None, :, None, None]
        loss = (error * weight).sum() / weight.expand_as(error).sum()
        return {"loss": loss.item(), "gradient": learner.update(loss, step)}

    def _predict(self, network: nn.Module, batch: Batch) -> Tensor:
        mask = batch["mask"] if self.masked else None
        level = batch["noise_level"] if self.config.num_classes is not None else None
        prompt = batch.get("tokens")
        stride = batch["stride"] if self.config.max_stride is not None else None
        inputs = batch["x"], batch["timestep"], mask, level, prompt, stride
        return cast("Tensor", network(*inputs))

    def preview(self, step: int, folder: Path) -> dict[str, float]:
        """Sample clips of every kind, on sheets of their own."""
        with self.learners["denoiser"].averaged() as network, self.fabric.autocast():
            for number, kind in enumerate(self.run.clips):
                clips = self._sample(network, kind)
                sheets.write(folder / f"step-{step:07d}-{number}-{kind.kind}", clips)
        return {}

    def _sample(self, network: nn.Module, kind: ClipKind) -> Clips:
        rng = generator(self.run.seed, DrawStream.PREVIEW)
        cut = [self.clips.cut(kind, rng) for _ in range(_PREVIEW_ROWS)]
        z_0 = np.stack([clip for clip, _ in cut])
        shown = [1 + sequence for _, sequence in cut]
        prompts = {} if self.tokens is None else {"tokens": torch.from_numpy(self.tokens[shown])}

        def eps(x: Array, t: int, mask: Array, level: int) -> Array:
            batch = prompts | {
                "x": torch.from_numpy(x),
                "timestep": torch.full((len(x),), t),
                "mask": torch.from_numpy(mask),
                "noise_level": torch.full((len(x),), level),
                "stride": torch.full((len(x),), kind.stride),
            }
            return self._predict(network, self.fabric.to_device(batch)).float().cpu().numpy()

        clean = kind.kind == "unconditional" or not self.run.noise_levels
        level = -1 if clean or self.run.clean_conditions > 0 else 0
        sampled = preview.sample(eps, z_0, given(kind), level, self.clips.schedule, rng)
        return self._decode(sampled, kind)

    def _decode(self, sampled: Array, kind: ClipKind) -> Clips:
        means = torch.from_numpy(sampled) / self.latents.scale - self.latents.shift
        means = means.to(self.fabric.device)
        return preview.decode(self.decoder.autoencoder, means, apart=kind.stride > 1)

    def export(self, folder: Path, step: int, *, if_missing: bool = False) -> None:
        """Write weights (averaged, where averages are kept) and their description."""
        latents = self.latents
        text = self.text
        record = modelfile.denoiser(
            self.run,
            self.config,
            self.decoder,
            step,
            scale=latents.scale,
            shift=latents.shift,
            text=None if text is None else text.encoder.config,
        )
        if not (if_missing and modelfile.holds(folder, record)):
            with self.learners["denoiser"].averaged() as network:
                weights = network.exported() if isinstance(network, PromptedUNet) else network
                modelfile.write(folder, weights, record, None if text is None else text.tokenizer)


def unet_config(run: DiffusionRun, channels: int, device: torch.device) -> UNet3dConfig:
    """Fill the network's config and check it against the kinds of clips to be trained.

    Raises ConfigError: the network has no input that a kind of clip needs, or of another size, or
    it fits into no memory.
    """
    config = network_config(UNet3dConfig, run.network)
    if config.in_channels not in (channels, channels + 1):
        raise ConfigError(
            f"network.in_channels is {config.in_channels}, expected {channels} (latents) "
            f"or {channels + 1} (latents and mask)"
        )
    if config.out_channels != channels:
        raise ConfigError(f"network.out_channels is {config.out_channels}, expected {channels}")
    conditional = any(kind.kind != "unconditional" for kind in run.clips)
    if conditional and config.in_channels == channels:
        raise ConfigError(
            f"clips hold conditional kinds, which need a mask: network.in_channels {channels + 1}"
        )
    if conditional and run.noise_levels > (config.num_classes or 0):
        raise ConfigError(
            f"noise_levels is {run.noise_levels}, but network.num_classes is {config.num_classes}: "
            f"raise it to {run.noise_levels + 1} (the official layout keeps one spare row)"
        )
    farthest = max(kind.stride for kind in run.clips)
    if config.max_stride is not None and farthest > config.max_stride:
        raise ConfigError(
            f"clips hold a stride of {farthest}, but network.max_stride is {config.max_stride}: "
            f"raise it to {farthest}"
        )
    if config.prediction == "x0":
        raise ConfigError("network.prediction is x0, expected eps or v: x0 can only be exported")
    if config.prediction == "v" and config.timesteps != run.schedule.steps:
        raise ConfigError(
            f"network.timesteps is {config.timesteps}, expected {run.schedule.steps}: a network "
            "that predicts v holds a value for each of the schedule.steps"
        )
    if (config.context_dim is None) != (run.text is None):
        raise ConfigError(
            "network.context_dim and text belong together: set both for a denoiser that reads "
            "captions, or neither"
        )
    build(lambda wanted: _try(wanted, run, device), config)
    return config


def _try(config: UNet3dConfig, run: DiffusionRun, device: torch.device) -> None:
    """Send a clip of every kind through the network, without memory, before hours of encoding."""
    side = 2 ** (len(config.channel_mult) - 1)
    with torch.device("meta"):
        network = UNet3d(config)
        check_affordable(network, device)
        for kind in run.clips:
            clip = torch.empty(1, config.out_channels, kind.latents, side, side)
            number = torch.zeros(1, dtype=torch.int64)
            masked = config.in_channels > config.out_channels
            mask = torch.zeros(1, kind.latents) if masked else None
            level = number if config.num_classes is not None else None
            stride = number if config.max_stride is not None else None
            context = probe_context(run.text, config.context_dim)
            network(clip, number, mask, level, context, stride)


def check_initial(initial: UNet3d, config: UNet3dConfig) -> None:
    """Refuse weights to start from that belong to a network of other sizes.

    What the last convolution gives may differ: ε and v are near each other at low noise.
    Raises ConfigError: naming the fields.
    """
    free = {"prediction", "timesteps"}
    theirs, ours = dataclasses.asdict(initial.config), dataclasses.asdict(config)
    wrong = [k for k in ours if k not in free and theirs[k] != ours[k]]
    if wrong:
        told = ", ".join(f"{name} {theirs[name]} instead of {ours[name]}" for name in wrong)
        raise ConfigError(f"start_from holds another network: {told}; make them equal")


def check_lengths(run: DiffusionRun, downsample: Sequence[int]) -> None:
    """Refuse clips longer than the encoded sequences, and sizes that levels or windows cut.

    Raises ConfigError: naming the field and what it needs.
    """
    per_latent, *spatial = downsample
    halvings = 2 ** (len(run.network.get("channel_mult", UNet3dConfig.channel_mult)) - 1)
    for pixels, factor in zip(run.data.size, spatial, strict=True):
        if pixels % (factor * halvings):
            raise ConfigError(
                f"data.size is {run.data.size}, expected multiples of {factor * halvings}: the "
                f"levels of network.channel_mult halve the latents' {factor}-pixel grid"
            )
    if run.data.window % per_latent:
        raise ConfigError(
            f"data.window is {run.data.window}, expected a multiple of {per_latent}, "
            "the frames of one latent"
        )
    available = run.data.frames // per_latent
    for index, kind in enumerate(run.clips):
        span = (kind.latents - 1) * kind.stride + 1
        if span > available:
            raise ConfigError(
                f"clips[{index}] ({kind.kind}) spans {span} latents, but data.frames "
                f"{run.data.frames} gives {available}: raise data.frames to {span * per_latent}"
            )
