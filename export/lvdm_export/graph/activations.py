"""The largest magnitudes inside a network, which decide whether it can run in half precision.

A CPU computes half precision graphs in float32 and cannot show an overflow; so every tensor is
measured in float32 on sample inputs and compared with a share of the largest half number.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from lvdm_engines.errors import ExportError

HALF_MAX = 65504.0
SHARE = 0.25  # of HALF_MAX; the rest is room for inputs that the samples do not cover
_SHOWN = 5


@dataclass
class Activations:
    """Largest magnitude of every tensor by name; tensors inside float32 islands are apart."""

    half: dict[str, float] = field(default_factory=dict)
    islands: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return the numbers for the manifest."""
        ranked = sorted(self.half.items(), key=lambda item: -item[1])
        return {
            "limit": HALF_MAX * SHARE,
            "tensors": len(self.half),
            "largest": {name: float(f"{value:.4g}") for name, value in ranked[:_SHOWN]},
            "largest_in_float32": float(f"{max(self.islands.values(), default=0.0):.4g}"),
        }


def measure(module: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Activations:
    """Run a float32 module on sample inputs and watch every tensor it computes."""
    largest = Activations()
    with torch.no_grad(), _named(module, largest) as stack:
        for feeds in batches:
            # The fused attention kernels would hide the scores.
            with sdpa_kernel(SDPBackend.MATH), _Watch(largest, stack):
                module(**feeds)
    return largest


def check(graph: str, module: nn.Module, largest: Activations) -> None:
    """Refuse a module whose weights or activations come near the end of the half range.

    Raises ExportError: the tensor's name and magnitude.
    """
    values = dict(largest.half)
    islands = {id(p) for p in _island_parameters(module)}
    for name, parameter in module.named_parameters():
        if id(parameter) not in islands:
            values[f"weight {name}"] = float(parameter.detach().abs().max())
    for name, value in values.items():
        if not math.isfinite(value) or value > HALF_MAX * SHARE:
            raise ExportError(
                f"{graph}: {name} reaches {value:.4g}, expected at most {HALF_MAX * SHARE:.0f} "
                f"({SHARE:.0%} of the half range); use --precision fp32"
            )


def _island_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    for layer in module.modules():
        if getattr(layer, "keep_float32", False):
            yield from layer.parameters()


@dataclass(frozen=True)
class _Frame:
    name: str
    island: bool


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch types it loosely
    """Notes the largest magnitude of the result of every operation."""

    def __init__(self, largest: Activations, stack: list[_Frame]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest, self.stack = largest, stack

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.aminmax:  # ours, in `_leave`
            return result
        # What the graph does around the network (pixels, latent normalisation) is float32, too.
        island = len(self.stack) <= 1 or any(frame.island for frame in self.stack)
        where = self.stack[-1].name if self.stack else ""
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel():
                name = f"{where} {func.overloadpacket.__name__}".strip()
                _note(self.largest.islands if island else self.largest.half, name, tensor)
        return result


def _note(values: dict[str, float], name: str, tensor: Tensor) -> None:
    """Keep the larger of this and what was seen under the same name."""
    low, high = tensor.aminmax()
    values[name] = max(values.get(name, 0.0), float(high), -float(low))


@contextmanager
def _named(module: nn.Module, largest: Activations) -> Iterator[list[_Frame]]:
    """Keep track of which layer is running."""
    stack: list[_Frame] = []
    hooks = []
    for name, layer in module.named_modules():
        frame = _Frame(name, bool(getattr(layer, "keep_float32", False)))
        hooks.append(layer.register_forward_pre_hook(_enter(stack, frame)))
        hooks.append(layer.register_forward_hook(_leave(stack, largest)))
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()


def _enter(stack: list[_Frame], frame: _Frame) -> Any:
    return lambda _layer, _inputs: stack.append(frame)


def _leave(stack: list[_Frame], largest: Activations) -> Any:
    def leave(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        frame = stack.pop()
        if frame.island and isinstance(output, Tensor):  # what an island gives is cast back
            _note(largest.half, f"{frame.name} output", output)

    return leave
