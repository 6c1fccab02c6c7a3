"""Latents with unit covariance, by rewriting the two 1×1×1 convolutions around them.

A denoiser sees every latent channel through the same noise. Where channels repeat each other or
differ tenfold in size, faint ones drown although the decoder depends on them. A linear map of the
channels and its inverse change nothing for the autoencoder and even that out for the denoiser.
"""

from typing import cast

import torch
from torch import Tensor

from lvdm_engines.errors import TrainingError
from lvdm_export.nets.autoencoder3d import Autoencoder3d
from lvdm_tools.train.autoencoder.losses import split_moments


@torch.no_grad()
def whitened(network: Autoencoder3d, frames: Tensor) -> Autoencoder3d:
    """Copy `network` with latents of zero mean and unit covariance over frames (b, 3, f, h, w).

    Reconstructions stay the same up to rounding. The log variances become constants: the variance
    of each new channel, averaged over `frames`.
    Raises TrainingError: latents do not vary in every direction, so nothing can be evened out.
    """
    moments = torch.cat([network.encode(clip[None]) for clip in frames])
    means, logvars = split_moments(moments)
    c = means.shape[1]
    rows = means.transpose(0, 1).reshape(c, -1).double()  # (c, n)
    centre = rows.mean(dim=1)
    values, vectors = torch.linalg.eigh(torch.cov(rows).reshape(c, c))
    if not float(values[0]) > 1e-8 * float(values[-1]):
        raise TrainingError(
            f"the {c} latent channels span fewer than {c} dimensions (variances "
            f"{[float(f'{v:.2g}') for v in values]}): train longer, or set whiten: false"
        )
    matrix = (vectors / values.sqrt()).T  # (c, c), new from old
    variance = matrix.square() @ logvars.double().exp().mean((0, 2, 3, 4))
    result = Autoencoder3d(network.config).to(frames.device)
    result.load_state_dict(network.state_dict())
    into, out = result.quant_conv.conv, result.post_quant_conv.conv
    weight, bias = into.weight.double(), cast("Tensor", into.bias).double()
    into.weight[:c] = torch.einsum("ij,j...->i...", matrix, weight[:c]).float()
    into.weight[c:] = 0
    into.bias[:c] = (matrix @ (bias[:c] - centre)).float()  # type: ignore[index]
    into.bias[c:] = variance.log().float()  # type: ignore[index]
    weight, bias = out.weight.double(), cast("Tensor", out.bias).double()
    out.weight.copy_(torch.einsum("oj...,ji->oi...", weight, torch.linalg.inv(matrix)))
    out.bias.copy_(bias + weight[:, :, 0, 0, 0] @ centre)  # type: ignore[union-attr]
    return result
