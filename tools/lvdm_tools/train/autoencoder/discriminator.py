"""A patch discriminator over space and time for the adversarial loss."""

import math

import torch
from torch import Tensor, nn

from lvdm_engines.errors import ConfigError
from lvdm_tools.train.config import Adversarial
from lvdm_tools.train.networks import check_affordable


class PatchDiscriminator3d(nn.Module):
    """Score overlapping space-time patches: (b, 3, f, h, w) → (b, 1, f', h', w').

    Group norm instead of the family's batch norm: a batch's items stay independent and no running
    statistics have to be exchanged between processes or resumed.
    """

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        parts: list[nn.Module] = [_conv(3, channels, stride=2), nn.LeakyReLU(0.2)]
        width = channels
        for layer in range(1, layers + 1):
            wider = channels * min(2**layer, 8)
            parts += [
                _conv(width, wider, stride=2 if layer < layers else 1),
                nn.GroupNorm(math.gcd(wider, 32), wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        self.layers = nn.Sequential(*parts, _conv(width, 1, stride=1))

    def forward(self, frames: Tensor) -> Tensor:
        """Return one logit per patch."""
        scores: Tensor = self.layers(frames)
        return scores


def check_discriminator(
    settings: Adversarial, clip: tuple[int, int, int], device: torch.device
) -> None:
    """Refuse a discriminator that shrinks clips (f, h, w) to nothing, or fits into no memory.

    Raises ConfigError: naming the field.
    """
    try:
        with torch.device("meta"):
            network = PatchDiscriminator3d(settings.channels, settings.layers)
            check_affordable(network, device, "loss.adversarial")
            network(torch.empty(1, 3, *clip))
    except RuntimeError as err:
        raise ConfigError(
            f"loss.adversarial.layers is {settings.layers}: clips of {clip[0]} frames and "
            f"{clip[1]}×{clip[2]} pixels are too small for that many; lower it"
        ) from err


def _conv(inputs: int, outputs: int, stride: int) -> nn.Conv3d:
    # three taps in time keep clips of four frames usable; four in space as in PatchGAN
    return nn.Conv3d(inputs, outputs, (3, 4, 4), stride=(stride, stride, stride), padding=1)
