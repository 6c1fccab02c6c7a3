"""Training of the 3D KL autoencoder: reconstruction, KL, perceptual and hinge losses."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from lvdm_engines.errors import ConfigError
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_tools.data.clip import ClipSource, ClipSpec, check_divisible
from lvdm_tools.quality import metrics
from lvdm_tools.train import model_json as modelfile
from lvdm_tools.train import sheets
from lvdm_tools.train.autoencoder import losses
from lvdm_tools.train.autoencoder.discriminator import PatchDiscriminator3d, check_discriminator
from lvdm_tools.train.autoencoder.lpips import Lpips
from lvdm_tools.train.autoencoder.whitening import whitened
from lvdm_tools.train.config import Adversarial, AutoencoderRun
from lvdm_tools.train.draws import DrawStream, generator
from lvdm_tools.train.learner import Batch, Learner
from lvdm_tools.train.networks import build, check_affordable, network_config
from lvdm_tools.train.pixels import to_frames, to_tensor

_PREVIEW_CLIPS = 4
_MEASURED_CLIPS = 16
_WHITENING_CLIPS = 32

_logger = logging.getLogger(__name__)


class _Reconstruct(nn.Module):
    """The training pass, so that processes exchange gradients of one forward call."""

    def __init__(self, autoencoder: Autoencoder3d) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode a posterior sample z = mean + σ·noise."""
        mean, logvar = losses.split_moments(self.autoencoder.encode(frames))
        decoded = self.autoencoder.decode(mean + torch.exp(0.5 * logvar) * noise)
        return decoded, mean, logvar


class AutoencoderTask:
    """What the loop trains; see `loop.Task`."""

    learners: Mapping[str, Learner]

    def __init__(
        self,
        run: AutoencoderRun,
        source: ClipSource,
        held_out: ClipSource,
        fabric: Fabric,
        initial: Autoencoder3d | None = None,
    ) -> None:
        self.run = run
        self.source = source
        self.held_out = held_out
        self.fabric = fabric
        self.config = network_config(Autoencoder3dConfig, run.network)
        if self.config.norm_type != "group":  # the others' statistics are not learnt here
            raise ConfigError(
                f"network: norm_type is {self.config.norm_type!r}, which is read from checkpoints "
                "of others but not trained; use 'group'"
            )
        check_divisible(source.spec, self.config.downsample)
        self.size = run.data.size if run.crop is None else run.crop
        check_divisible(ClipSpec(run.data.frames, self.size), self.config.downsample)
        torch.manual_seed(run.seed)
        network = self._new() if initial is None else initial
        if network.config != self.config:
            raise ConfigError(
                f"start_from holds another network ({network.config}), expected {self.config}"
            )
        # channels last: 6 % less time per step on a CPU
        self.autoencoder = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        main = Learner(
            fabric, _Reconstruct(self.autoencoder), run.optimizer, steps=run.steps, ema=run.ema
        )
        self.learners = {"autoencoder": main}
        self.perceptual = None
        if run.loss.perceptual is None:
            _logger.info("loss.perceptual names no LPIPS weights: training on pixel errors only")
        else:
            self.perceptual = Lpips.load(run.loss.perceptual).to(fabric.device)
        if run.loss.adversarial is not None:
            critic = self._discriminator(run.loss.adversarial)
            self.learners = {"autoencoder": main, "discriminator": critic}

    def _new(self) -> Autoencoder3d:
        with torch.device("meta"):
            check_affordable(build(Autoencoder3d, self.config), self.fabric.device)
        network = build(Autoencoder3d, self.config)
        with torch.no_grad():
            bias = cast("Tensor", network.quant_conv.conv.bias)
            bias[self.config.embed_dim :] += self.run.initial_logvar
        return network

    def _discriminator(self, settings: Adversarial) -> Learner:
        rate = settings.learning_rate
        optimizer = self.run.optimizer
        if rate is not None:
            optimizer = msgspec.structs.replace(optimizer, learning_rate=rate)
        size = self.run.data.size if self.run.crop is None else self.run.crop
        check_discriminator(settings, (self.run.data.frames, *size), self.fabric.device)
        network = PatchDiscriminator3d(settings.channels, settings.layers)
        return Learner(self.fabric, network, optimizer, steps=self.run.steps)

    def batch(self, step: int) -> Batch:
        """Clips and posterior noise of this process's share of a step."""
        mine = range(self.fabric.global_rank, self.run.batch, self.fabric.world_size)
        (height, width), (t, h, w) = self.size, self.config.downsample
        shape = (self.config.embed_dim, self.run.data.frames // t, height // h, width // w)
        frames = [self._crop(self.source.clip(step * self.run.batch + i), step, i) for i in mine]
        draws = [generator(self.run.seed, DrawStream.NOISE, step, item) for item in mine]
        noise = [draw.standard_normal(shape, np.float32) for draw in draws]
        return {
            "frames": to_tensor(np.stack(frames)),
            "noise": torch.from_numpy(np.stack(noise)),
        }

    def _crop(self, clip: NDArray[np.uint8], step: int, item: int) -> NDArray[np.uint8]:
        """Cut this item's random window out of a clip (f, h, w, 3), if the run trains on crops."""
        if self.run.crop is None:
            return clip
        height, width = self.run.crop
        random = generator(self.run.seed, DrawStream.CROP, step, item)
        y = int(random.integers(clip.shape[1] - height + 1))
        x = int(random.integers(clip.shape[2] - width + 1))
        return clip[:, y : y + height, x : x + width]

    def update(self, batch: Batch, step: int) -> dict[str, float]:
        """Train the autoencoder, and once it has started the discriminator."""
        learner, frames, weights = self.learners["autoencoder"], batch["frames"], self.run.loss
        decoded, mean, logvar = learner.module(frames, batch["noise"])
        pixel = losses.reconstruction(frames, decoded, weights.mse, weights.l1)
        if self.perceptual is not None and weights.perceptual is not None:
            pixel = pixel + weights.perceptual.weight * self.perceptual(frames, decoded)
        kl = losses.kl_per_pixel(mean, logvar, frames[0].numel())
        loss, report = pixel + weights.kl * kl, {"pixel": pixel.item(), "kl": kl.item()}
        if weights.motion:
            change = losses.motion(frames, decoded)
            loss, report["motion"] = loss + weights.motion * change, change.item()
        if weights.chroma:
            colour = losses.chroma(frames, decoded)
            loss, report["chroma"] = loss + weights.chroma * colour, colour.item()
        adversarial = weights.adversarial
        if adversarial is None:
            report["gradient"] = learner.update(loss, step)
        elif step < adversarial.start:
            report |= {"adversarial_weight": 0.0, "discriminator": 0.0}
            report["gradient"] = learner.update(loss, step)
        else:
            term, report["adversarial_weight"] = self._fool(pixel, decoded, adversarial)
            loss = loss + term
            report["gradient"] = learner.update(loss, step)
            report["discriminator"] = self._judge(frames, decoded.detach(), step)
        return {"loss": loss.item()} | report

    def _fool(self, pixel: Tensor, decoded: Tensor, settings: Adversarial) -> tuple[Tensor, float]:
        """Return the generator's side of the hinge loss, weighted against the pixel loss."""
        # the bare network, frozen: its gradients are neither wanted nor exchanged here
        critic = self.learners["discriminator"].network.requires_grad_(requires_grad=False)
        term = -critic(decoded).mean()
        last = cast("Tensor", self.autoencoder.decoder.conv_out.conv.weight)
        weight = settings.weight * losses.adaptive_weight(pixel, term, last)
        return weight * term, weight.item()

    def _judge(self, frames: Tensor, decoded: Tensor, step: int) -> float:
        critic = self.learners["discriminator"]
        critic.network.requires_grad_(requires_grad=True)
        loss = losses.hinge_discriminator(critic.module(frames), critic.module(decoded))
        critic.update(loss, step)
        return loss.item()

    def preview(self, step: int, folder: Path) -> dict[str, float]:
        """Reconstruct held-out clips: sheet of pairs (original above), PSNR in dB, colour error."""
        clips = np.stack([self.held_out.clip(item) for item in range(_MEASURED_CLIPS)])
        decoded = self._reconstruct(clips)
        pairs = np.stack([clips, decoded], axis=1)[:_PREVIEW_CLIPS]
        sheets.write(folder / f"step-{step:07d}", pairs.reshape(-1, *clips.shape[1:]))
        return {
            "psnr": metrics.psnr(decoded, clips),
            "colour_error": metrics.colour_error(decoded, clips),
        }

    def _reconstruct(self, clips: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with self.learners["autoencoder"].averaged(), self.fabric.autocast():
            return np.concatenate(
                [
                    to_frames(self.autoencoder(to_tensor(clips[i : i + 1]).to(self.fabric.device)))
                    for i in range(len(clips))
                ]
            )

    def export(self, folder: Path, step: int, *, if_missing: bool = False) -> None:
        """Write weights (averaged, where averages are kept) and their description."""
        record = modelfile.autoencoder(self.run, self.config, step)
        if not (if_missing and modelfile.holds(folder, record)):
            with self.learners["autoencoder"].averaged():
                network = self._whitened() if self.run.whiten else self.autoencoder
                modelfile.write(folder, network, record)

    def _whitened(self) -> Autoencoder3d:
        clips = np.stack([self.source.clip(index) for index in range(_WHITENING_CLIPS)])
        return whitened(self.autoencoder, to_tensor(clips).to(self.fabric.device))
