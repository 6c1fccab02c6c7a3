"""What this machine is, how fast it multiplies matrices, and how busy others keep it."""

import datetime as dt
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.backends.ort.native import load, session_options
from lvdm_engines.backends.processor import multiplies_bf16, processor
from lvdm_tools.bench.clock import attempt, failure, median_ms

_PACKAGES = (
    "numpy",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-core",
)
Matrix = NDArray[np.float32]

_SIDES = 1024, 2048  # of the matrices that show a CPU's peak
_WIDE = {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"}


def packages() -> dict[str, str]:
    """Return the versions of what computes, as far as it is installed."""
    found = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def describe() -> dict[str, Any]:
    """Return what the machine is."""
    name, instructions = processor()
    return {
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": name,
        "instructions": sorted(_WIDE & instructions),
        "cores": len(os.sched_getaffinity(0)),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": packages(),
    }


def peaks(seconds: float, threads: int | None) -> dict[str, Any]:
    """Return the fastest matrix products measured, in GFLOP/s: fp32, and bf16 where it pays.

    No library is the fastest everywhere: torch's does not use all of an AMD processor. NumPy takes
    part only where it may use all cores: its threads cannot be chosen here.
    """
    import torch

    from lvdm_tools.bench.torch_baseline import matrix_peak

    def torch_peak(dtype: torch.dtype) -> float:
        return 1000 * matrix_peak("cpu", seconds, dtype, _SIDES)

    found = {
        "fp32": [
            attempt(torch_peak, torch.float32),
            attempt(_onnxruntime_peak, seconds, threads),
        ]
    }
    if threads is None:
        found["fp32"].append(attempt(_numpy_peak, seconds))
    if multiplies_bf16():
        found["bf16"] = [attempt(torch_peak, torch.bfloat16)]
    return {
        name: max((v for v in values if isinstance(v, float)), default=failure(*values))
        for name, values in found.items()
    }


def _numpy_peak(seconds: float) -> float:
    return _best(np.matmul, seconds)


def _onnxruntime_peak(seconds: float, threads: int | None) -> float:
    from onnx import TensorProto, helper

    names = ("a", "b", "c")
    a, b, c = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", "n"]) for n in names)
    product = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])], "peak", [a, b], [c]
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(product, opset_imports=opset, ir_version=8)
    ort = load()
    settings = session_options(ort, SessionOptions(threads=threads))
    run = ort.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"]).run
    return _best(lambda a, b: run(None, {"a": a, "b": b}), seconds)


def _best(multiply: Callable[[Matrix, Matrix], object], seconds: float) -> float:
    """Return the GFLOP/s of the side that is multiplied fastest."""
    rng = np.random.default_rng(0)
    best = 0.0
    for side in _SIDES:
        a, b = (rng.standard_normal((side, side), np.float32) for _ in range(2))
        best = max(best, 2 * side**3 / (1e6 * median_ms(partial(multiply, a, b), seconds)))
    return best


class Others:
    """How many cores other programs keep busy from now on."""

    def __init__(self) -> None:
        self._before = self._now()

    def cores(self) -> float:
        """Return the average since this was made."""
        wall, ours, all_ = (b - a for a, b in zip(self._before, self._now(), strict=True))
        return max(0.0, all_ - ours) / wall

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Return seconds of the clock, of this program and what it started, and of all."""
        ticks = [int(n) for n in Path("/proc/stat").read_text("ascii").split("\n")[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        all_ = (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), sum(os.times()[:4]), all_
