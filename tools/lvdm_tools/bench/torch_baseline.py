"""PyTorch on the same device, as the yardstick: eager, half precision, compiled; and its peak."""

import copy
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from lvdm_export.nets.layers import to_half

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


def matrix_peak(device: str, seconds: float) -> float:
    """Return the fastest dense half precision matrix product measured, in TFLOP/s."""
    best = 0.0
    half = torch.float16 if device.startswith("cuda") else torch.float32
    for side in (4096, 8192, 12288) if half == torch.float16 else (512,):
        a = torch.randn(side, side, device=device).to(half)
        b = torch.randn(side, side, device=device).to(half)

        def call(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            torch.mm(a, b)
            _wait(device)

        best = max(best, 2 * side**3 / (median_ms(call, seconds) * 1e9))
    return best


def median_ms(call: Callable[[], None], seconds: float) -> float:
    """Call for about `seconds`, at least five times after warming up; the median in ms."""
    for _ in range(3):
        call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 5 or (time.perf_counter() < end and len(taken) < 1000):
        started = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def release(device: str) -> None:
    """Let go of compiled code, and give memory that PyTorch holds for later back to the device."""
    gc.collect()  # modules refer to themselves
    if device.startswith("cuda") and torch.cuda.is_available():
        torch.compiler.reset()
        torch.cuda.empty_cache()


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
