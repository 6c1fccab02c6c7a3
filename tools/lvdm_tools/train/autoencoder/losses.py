"""Losses of the autoencoder: reconstruction, KL, hinge; pure functions of tensors."""

import torch
from torch import Tensor, nn


def reconstruction(frames: Tensor, decoded: Tensor, mse: float, l1: float) -> Tensor:
    """Mix squared and absolute error, mean over all pixels; weight 0 leaves a part out."""
    loss = frames.new_zeros(())
    if mse:
        loss = loss + mse * nn.functional.mse_loss(decoded, frames)
    if l1:
        loss = loss + l1 * nn.functional.l1_loss(decoded, frames)
    return loss


def motion(frames: Tensor, decoded: Tensor) -> Tensor:
    """Mean absolute error of the change from frame to frame of clips (b, c, f, h, w).

    Pixel errors hardly see flicker; a viewer sees little else.
    """
    return nn.functional.l1_loss(decoded.diff(dim=2), frames.diff(dim=2))


def chroma(frames: Tensor, decoded: Tensor) -> Tensor:
    """Mean absolute error of how far each channel is from its pixel's grey, of (b, c, f, h, w).

    Most of a pixel error is brightness: faint colours can fade without it growing by much.
    """
    error = decoded - frames
    grey: Tensor = error.mean(dim=1, keepdim=True)
    return (error - grey).abs().mean()


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Split (b, 2c, t, h, w) into mean and log variance, the latter kept in −30..20."""
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def kl_per_pixel(mean: Tensor, logvar: Tensor, pixels: int) -> Tensor:
    """KL(q ‖ N(0, 1)) summed over a clip's latents, divided by its `pixels` values.

    The official loss sums both KL and pixel error over a clip; dividing both by the pixel count
    keeps its weight (1e-6) comparable at any resolution.
    """
    total = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum()
    return total / (mean.shape[0] * pixels)


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """½ (E[max(0, 1 − D(x))] + E[max(0, 1 + D(x̂))])."""
    relu = nn.functional.relu
    return 0.5 * (relu(1.0 - real).mean() + relu(1.0 + fake).mean())


def adaptive_weight(pixel_loss: Tensor, adversarial_loss: Tensor, last: Tensor) -> Tensor:
    """‖∇ pixel‖ / ‖∇ adversarial‖ at the decoder's last weight (VQGAN, eq. 7), at most 1e4."""
    (pixel,) = torch.autograd.grad(pixel_loss, last, retain_graph=True)
    (adversarial,) = torch.autograd.grad(adversarial_loss, last, retain_graph=True)
    weight: Tensor = (pixel.norm() / (adversarial.norm() + 1e-4)).clamp(0.0, 1e4).detach()
    return weight
