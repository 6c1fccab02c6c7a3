"""PyTorch on the same device, as the yardstick: eager, half precision, compiled; and its peak."""

import copy
import gc
from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from lvdm_export.nets.layers import to_half
from lvdm_tools.bench.clock import median_ms

EAGER, HALF, COMPILED = "torch eager fp32", "torch fp16 channels_last", "torch.compile fp16"
VARIANTS = (EAGER, HALF, COMPILED)


def variant(module: nn.Module, name: str, device: str) -> Callable[..., Any]:
    """Return a copy of a float32 module on a device, made as fast as the variant's name says."""
    module = copy.deepcopy(module).to(device)
    if name == EAGER:
        return module
    to_half(module)
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.dim() in layouts:
            layout = layouts[parameter.dim()]
            parameter.data = parameter.data.contiguous(memory_format=layout)
    if name == HALF:
        return module
    # for one shape at a time, as it is timed: code for any shape would be slower
    compiled: Callable[..., Any] = torch.compile(module, mode="reduce-overhead", dynamic=False)
    return compiled


def tune() -> None:
    """Let cuDNN choose its fastest convolutions by trial, as a user who wants speed would."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


def time_module(
    module: Callable[..., Any], device: str, seconds: float, feeds: Mapping[str, NDArray[Any]]
) -> float:
    """Return the median milliseconds of one call whose inputs are on the device already."""
    tensors = {name: torch.from_numpy(array).to(device) for name, array in feeds.items()}

    def call() -> None:
        module(**tensors)
        _wait(device)

    with torch.inference_mode():
        return median_ms(call, seconds)


def matrix_peak(device: str, seconds: float, dtype: torch.dtype, sides: tuple[int, ...]) -> float:
    """Return the fastest dense matrix product measured, in TFLOP/s."""
    best = 0.0
    for side in sides:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

        def call(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            torch.mm(a, b)
            _wait(device)

        best = max(best, 2 * side**3 / (median_ms(call, seconds) * 1e9))
    return best


def release(device: str) -> None:
    """Let go of compiled code, and give memory that PyTorch holds for later back to the device."""
    gc.collect()  # modules refer to themselves
    if device.startswith("cuda") and torch.cuda.is_available():
        torch.compiler.reset()
        torch.cuda.empty_cache()


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
