"""One network with its optimizer, learning rate and running average."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lvdm_engines.errors import NumericsError
from lvdm_tools.train import state
from lvdm_tools.train.config import Optimizer

Batch = dict[str, Tensor]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of Adam


def learning_rate(settings: Optimizer, step: int, steps: int) -> float:
    """Learning rate of a step: linear warm-up, then the chosen decay to 0 at `steps`."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    done = step / steps
    decay = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
    }[settings.decay]
    return settings.learning_rate * warm * decay


class Learner:
    """Trains one network; owns every tensor that a resumed run needs.

    `network` is the bare module, `module` the one to call in training (it may exchange gradients
    between processes).
    """

    def __init__(
        self,
        fabric: Fabric,
        network: nn.Module,
        settings: Optimizer,
        *,
        steps: int,
        ema: float | None = None,
    ) -> None:
        self.fabric = fabric
        self.network = network
        self.settings = settings
        self.steps = steps
        self.decay = ema
        self.adam = torch.optim.AdamW(
            network.parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.module, self._stepper = fabric.setup(network, self.adam)
        self.average = {
            name: parameter.detach().clone() for name, parameter in self._named() if ema is not None
        }

    def update(self, loss: Tensor, step: int) -> float:
        """Take one step down the gradient of `loss`; return the gradient's norm before clipping.

        Raises NumericsError: loss or gradient is not finite; the weights are untouched.
        """
        self._stepper.zero_grad()
        self.fabric.backward(loss)
        limit = self.settings.clip
        norm = float(
            cast(
                "Tensor",
                self.fabric.clip_gradients(
                    self.module, self._stepper, max_norm=limit, error_if_nonfinite=False
                ),
            )
        )
        # after the backward pass every process sees the same norm, so all of them stop together
        if not math.isfinite(norm) or not math.isfinite(loss.item()):
            raise NumericsError(
                f"at step {step + 1} the loss is {loss.item():.4g}, its gradient's norm {norm:.4g}"
            )
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(self.settings, step, self.steps)
        self._stepper.step()
        self._follow(step)
        return norm

    def _follow(self, step: int) -> None:
        if self.decay is None:
            return
        decay = min(self.decay, (1 + step) / (10 + step))  # young averages forget the first weights
        with torch.no_grad():
            for name, parameter in self._named():
                self.average[name].lerp_(parameter, 1.0 - decay)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Lend the network with its running averages as weights, where there are any."""
        live = {name: parameter.detach().clone() for name, parameter in self._named()}
        self._assign(self.average)
        self.network.eval()
        try:
            with torch.no_grad():
                yield self.network
        finally:
            self._assign(live)
            self.network.train()

    def tensors(self) -> dict[str, Tensor]:
        """Everything to store: weights, optimizer moments and averages."""
        out = {f"weight.{name}": parameter.detach() for name, parameter in self._named()}
        out |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for name, parameter in self._named():
            for key, value in self.adam.state.get(parameter, {}).items():
                out[f"optimizer.{name}.{key}"] = value
        return out

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave.

        Raises LookupError or ValueError: a tensor is missing or not as it was.
        """
        for name, parameter in self._named():
            _fill(parameter.data, tensors, f"weight.{name}")
            if any(f"optimizer.{name}.{key}" in tensors for key in _MOMENTS):
                # laid out like the parameter: the fused optimizer walks raw memory
                moments = {key: torch.zeros_like(parameter) for key in _MOMENTS}
                moments["step"] = torch.zeros((), device=self.fabric.device)
                for key, moment in moments.items():
                    _fill(moment, tensors, f"optimizer.{name}.{key}")
                    if key != "exp_avg" and bool((moment < 0).any()):
                        raise ValueError(f"optimizer.{name}.{key} holds a number below 0")
                self.adam.state[parameter] = moments
        for name, tensor in self.average.items():
            _fill(tensor, tensors, f"average.{name}")

    def _assign(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._named():
                if name in values:
                    parameter.copy_(values[name])

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        """Name what is trained; what is frozen is not part of the checkpoint."""
        named = self.network.named_parameters()
        return [(name, parameter) for name, parameter in named if parameter.requires_grad]


def _fill(target: Tensor, source: Mapping[str, Tensor], name: str) -> None:
    target.copy_(state.tensor(source, name, target.shape, target.dtype))
