"""Whether an NVIDIA driver is here, asked without any CUDA package."""

import ctypes
from functools import cache


@cache
def driver_problem() -> str | None:
    """Return why no NVIDIA GPU can be used, with the fix, or None."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1) on this machine; install it, or use --backend cpu"
    code = driver.cuInit(0)
    if code != 0:
        return f"the NVIDIA driver reports error {code} at start; check nvidia-smi"
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    return None if count.value > 0 else "the NVIDIA driver sees no GPU; check nvidia-smi"
