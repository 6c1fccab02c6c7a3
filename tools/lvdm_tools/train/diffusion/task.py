"""Training of the denoiser: L_simple on eps over the frames that are not given."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from lvdm_export.nets.unet3d import UNet3d
from lvdm_tools.train import model_json as modelfile
from lvdm_tools.train import sheets
from lvdm_tools.train.config import ClipKind, DiffusionRun, DistillRun
from lvdm_tools.train.diffusion import preview
from lvdm_tools.train.diffusion.clips import ClipMaker, Example, given, schedule_of
from lvdm_tools.train.diffusion.distill import distillation
from lvdm_tools.train.diffusion.latents import Latents
from lvdm_tools.train.diffusion.sizes import unet_config
from lvdm_tools.train.diffusion.text import PromptedUNet, Prompts
from lvdm_tools.train.draws import DrawStream, generator
from lvdm_tools.train.learner import Batch, Learner
from lvdm_tools.train.model_json import FrozenDecoder

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
        schedule = schedule_of(run)
        self.distillation, self.teacher = None, None
        if isinstance(run, DistillRun):
            self.distillation = distillation(run)
        self.clips = ClipMaker(
            latents.sequences,
            run.clips,
            schedule,
            run.noise_levels,
            run.seed,
            run.clean_conditions,
            () if self.distillation is None else self.distillation.timesteps.tolist(),
        )
        self.alpha_bar = torch.from_numpy(schedule.alpha_bar).float().to(fabric.device)
        network: nn.Module = self._network(initial)
        if text is not None:
            network = PromptedUNet(cast("UNet3d", network), text.encoder)
        if self.distillation is not None:
            self.teacher = copy.deepcopy(network).requires_grad_(requires_grad=False).eval()
            self.teacher.to(fabric.device)
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
        wanted = self._taught(batch)
        error = wanted - self._predict(learner.module, batch)
        if self.config.prediction == "v":
            error = error / self.alpha_bar[batch["timestep"]].sqrt()[:, None, None, None, None]
        error = error.square() if self.run.loss == "mse" else error.abs()
        weight = 1.0 - batch["mask"][:, None, :, None, None]
        loss = (error * weight).sum() / weight.expand_as(error).sum()
        return {"loss": loss.item(), "gradient": learner.update(loss, step)}

    def _taught(self, batch: Batch) -> Tensor:
        """Return the eps to learn: the noise in x, or what leads where the teacher goes."""
        teacher = self.teacher
        if self.distillation is None or teacher is None:
            return batch["eps"]

        def eps(x: Tensor, timestep: Tensor) -> Tensor:
            return self._predict(teacher, batch | {"x": x, "timestep": timestep}).float()

        return self.distillation.target(eps, batch["x"], batch["timestep"], batch["mask"])

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
        calls = self.run.calls if isinstance(self.run, DistillRun) else None
        sampled = preview.sample(eps, z_0, given(kind), level, self.clips.schedule, rng, calls)
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
