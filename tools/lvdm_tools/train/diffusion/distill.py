"""What a student learns in place of noise: where several steps of its teacher end.

One DDIM step of the student goes where `teacher_calls` steps of the teacher's DPM-Solver++(2M) go
(progressive distillation, Salimans and Ho 2022, algorithm 2, with a solver of second order and any
number of steps in place of two of DDIM). Given frames, noise levels and strides stay as they are.
Knows nothing of batches of data.
"""

from collections.abc import Callable

import numpy as np
import torch
from msgspec.structs import astuple
from torch import Tensor

from lvdm_engines.errors import ConfigError
from lvdm_export.config.model_json import ModelRecord
from lvdm_rt.diffusion.schedule import Schedule, few_timesteps
from lvdm_tools.train.config import DistillRun
from lvdm_tools.train.diffusion.clips import schedule_of
from lvdm_tools.train.diffusion.text import frozen_sha256

Eps = Callable[[Tensor, Tensor], Tensor]


class Distillation:
    """The timesteps of a student and, between them, those of its teacher."""

    def __init__(self, schedule: Schedule, calls: int, teacher_calls: int) -> None:
        """Divide the way from noise to clips.

        Raises ConfigError: the teacher would call at one timestep twice.
        """
        self.timesteps = few_timesteps(schedule, calls)  # descending
        ways = [
            self._way(schedule, int(start), int(end), teacher_calls)
            for start, end in zip(self.timesteps, [*self.timesteps[1:], 0], strict=True)
        ]
        if len(ways) != calls or any(len(set(way)) != teacher_calls for way in ways):
            raise ConfigError(
                f"calls {calls} of teacher_calls {teacher_calls} each find too few of the "
                f"schedule's {schedule.steps} timesteps at low noise; lower them"
            )
        ends = [*schedule.alpha_bar[self.timesteps[1:]], 1.0]  # the last step leaves no noise
        alpha_bar = [[*schedule.alpha_bar[way], end] for way, end in zip(ways, ends, strict=True)]
        self._ways = torch.tensor(ways)  # (calls, teacher_calls)
        self._alpha_bar = torch.tensor(np.array(alpha_bar), dtype=torch.float32)  # one more
        self._row = {int(t): row for row, t in enumerate(self.timesteps)}

    @staticmethod
    def _way(schedule: Schedule, start: int, end: int, count: int) -> list[int]:
        """Return `count` timesteps from `start`, even in log sigma, before `end`."""
        log_sigma = np.log(schedule.sigma)
        wanted = np.linspace(log_sigma[start], log_sigma[end], count + 1)[:-1]
        return [int(t) for t in np.rint(np.interp(wanted, log_sigma, np.arange(schedule.steps)))]

    @torch.no_grad()
    def target(self, teacher: Eps, x: Tensor, timestep: Tensor, mask: Tensor) -> Tensor:
        """Return the eps with which one DDIM step ends where the teacher ends.

        x (b, c, t, h, w) at the student's timesteps (b), with the frames in it for which the mask
        (b, t) is 1; `teacher(x, timesteps)` predicts eps. What is returned for these frames means
        nothing.
        """
        rows = [self._row[t] for t in timestep.tolist()]
        ways = self._ways[rows].to(x.device)  # (b, k)
        a_bar = self._alpha_bar[rows].to(x.device)[..., None, None, None, None]  # (b, k + 1, …)
        signal, spread = a_bar.sqrt(), (1 - a_bar).sqrt()
        lam = torch.log(signal / spread)  # infinite where no noise is left
        given = mask[:, None, :, None, None] > 0
        z, z_0, earlier = x, x, x
        for i in range(ways.shape[1]):
            earlier, z_0 = z_0, (z - spread[:, i] * teacher(z, ways[:, i])) / signal[:, i]
            h = lam[:, i + 1] - lam[:, i]
            # 1 / 2r of the second order; neither the first step nor one to no noise has it
            second = h / (2 * (lam[:, i] - lam[:, i - 1])) if i > 0 else torch.zeros_like(h)
            d = z_0 + torch.where(h.isinf(), 0.0, second) * (z_0 - earlier)
            z = spread[:, i + 1] / spread[:, i] * z - signal[:, i + 1] * torch.expm1(-h) * d
            z = torch.where(given, x, z)
        ratio = signal[:, -1] / signal[:, 0]
        return (z - ratio * x) / (spread[:, -1] - ratio * spread[:, 0])


def check_teacher(run: DistillRun, told: ModelRecord, autoencoder: str) -> tuple[float, float]:
    """Return the scale and shift of a teacher's latents, once its student can be put beside it.

    `autoencoder` is the sha256 of the student's.

    Raises ConfigError: the teacher learnt on other latents, noise or conditions, or it is a student
    itself.
    """
    theirs = {
        "schedule": (told.schedule and astuple(told.schedule), astuple(run.schedule)),
        "noise_levels": (told.noise_levels, run.noise_levels if told.noise_levels else None),
        "autoencoder": (told.provenance.get("autoencoder_sha256"), autoencoder),
        "calls": (told.calls, None),
    }
    for name, (has, expected) in theirs.items():
        if has != expected:
            raise ConfigError(
                f"start_from holds a teacher with {name} {has}, expected {expected} as its student"
            )
    if run.text is not None and run.start_from is not None:
        frozen = run.text.frozen
        if frozen is None or frozen_sha256(frozen) != frozen_sha256(run.start_from):
            raise ConfigError(
                f"text.frozen is {frozen}, but a student reads text by its teacher's encoder: name "
                "the teacher there as well"
            )
    if told.scale is None or told.shift is None:
        raise ConfigError("start_from holds a teacher without the scale and shift of its latents")
    return told.scale, told.shift


def distillation(run: DistillRun) -> Distillation:
    """Return what the student of a run is taught. Raises ConfigError: there is no way to it."""
    return Distillation(schedule_of(run), run.calls, run.teacher_calls)
