"""The noise that weights were trained on: what a config says of it, and what a checkpoint stores.

Tables are float64, (timesteps,). A test holds them equal to those that the runtime samples with.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from lvdm_engines.errors import CheckpointError
from lvdm_engines.manifest import ScheduleFacts
from lvdm_export.checkpoint.keys import Checkpoint

ALPHA_BAR = "alphas_cumprod"  # as the authors' trainer stores it
_BETAS = "betas"
_COSINE_OFFSET = 8e-3  # s of Nichol & Dhariwal 2021, eq. 17
_LEAST_SIGNAL = 2.0**-24  # alpha_bar in place of 0, as the runtime has it


def alpha_bar(schedule: ScheduleFacts) -> Tensor:
    """Return ᾱ of every timestep, the share of the signal's variance that is left."""
    kept = torch.cumprod(1 - _betas(schedule), 0)
    if not schedule.zero_snr:
        return kept
    root = kept.sqrt()  # shifted and scaled to end at 0 (arXiv 2305.08891, algorithm 1)
    kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    kept[-1] = torch.clamp(kept[-2] / 2, max=_LEAST_SIGNAL)
    return kept


def _betas(schedule: ScheduleFacts) -> Tensor:
    if schedule.kind == "cosine":
        u = torch.arange(schedule.steps + 1, dtype=torch.float64) / schedule.steps + _COSINE_OFFSET
        f = torch.cos(u / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2
        return torch.clamp(1 - f[1:] / f[:-1], 0, 0.999)
    power = 2.0 if schedule.kind == "sqrt-linear" else 1.0
    first, last = schedule.beta_start ** (1 / power), schedule.beta_end ** (1 / power)
    return torch.linspace(first, last, schedule.steps, dtype=torch.float64) ** power


def with_table(checkpoint: Checkpoint, schedule: ScheduleFacts) -> Checkpoint:
    """Let a checkpoint of the authors hold the config's ᾱ: some are stored without, or end in 0."""
    if checkpoint.ours:
        return checkpoint
    shapes = {**checkpoint.shapes, ALPHA_BAR: (schedule.steps,)}
    stored = checkpoint.read
    return replace(
        checkpoint,
        shapes=shapes,
        read=lambda key: alpha_bar(schedule) if key == ALPHA_BAR else stored(key),
    )


def check_schedule(schedule: ScheduleFacts, checkpoint: Checkpoint) -> None:
    """Compare the config's noise schedule with the one the authors' trainer stores with weights.

    Raises CheckpointError: they differ, so the weights were trained on another schedule.
    """
    stored = checkpoint.shapes.get(_BETAS)
    if checkpoint.ours or stored is None:
        return
    if stored != (schedule.steps,):
        raise CheckpointError(
            f"{checkpoint.path}: betas has shape {list(stored)}, but the config expects "
            f"[{schedule.steps}] (timesteps); check that both belong to the same model"
        )
    betas = checkpoint.read(_BETAS)
    rounding = torch.finfo(betas.dtype).eps if betas.is_floating_point() else 0.0
    betas, kept = betas.double(), alpha_bar(schedule)
    expected = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    last = schedule.steps - schedule.zero_snr  # stored as 1, which leaves nothing to divide by
    if not torch.allclose(betas[:last], expected[:last], rtol=max(1e-4, rounding), atol=0.0):
        raise CheckpointError(
            f"{checkpoint.path}: betas run from {betas[0]:.4g} to {betas[-1]:.4g}, but the config "
            f"expects {expected[0]:.4g} to {expected[-1]:.4g} (beta_schedule, linear_start, "
            "linear_end, rescale_betas_zero_snr); check that both belong to the same model"
        )
