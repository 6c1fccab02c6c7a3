"""The NVIDIA driver and the GPUs it sees, asked through libcuda without any CUDA package."""

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NO_DEVICE = 100  # CUresult
_ADVICE = {
    _NO_DEVICE: "unset CUDA_VISIBLE_DEVICES, or start the container with --gpus all",
    802: "run systemctl start nvidia-fabricmanager",
    803: "it was updated while loaded; restart the machine",
    804: "its CUDA compatibility package does not fit this GPU; run apt remove 'cuda-compat-*'",
    999: "run modprobe nvidia-uvm, or restart the machine",
}
_PCI = Path("/sys/bus/pci/devices")


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver describes it.

    Memory is in bytes; `free` is None where the driver was not asked or will not say.
    """

    name: str
    capability: str
    total: int
    free: int | None
    driver: str


@cache
def driver_problem() -> str | None:
    """Return why no NVIDIA GPU can be used, with the fix if there is one, or None."""
    try:
        driver = _libcuda()
    except OSError:
        return _no_driver()
    code = driver.cuInit(0)
    if code != 0:
        advice = _ADVICE.get(code, "see what nvidia-smi and dmesg say")
        return f"the NVIDIA driver reports error {code} at start; {advice}"
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    return None if count.value > 0 else f"the NVIDIA driver sees no GPU; {_ADVICE[_NO_DEVICE]}"


def without_gpu(problem: str, lacking: str | None) -> str:
    """Join what the driver says with what else is lacking: packages alone would not help."""
    install = f"; GPU backends also need {lacking.partition('; ')[2]}" if lacking else ""
    return f"{problem}; use --backend cpu{install}"


def _no_driver() -> str:
    """Say what to do without libcuda, which depends on whether there is a GPU at all."""
    if not _has_card():
        return "found neither an NVIDIA GPU nor its driver (libcuda.so.1)"
    return (
        "there is an NVIDIA GPU but no driver (libcuda.so.1); install it with "
        "apt install nvidia-driver (Debian) or ubuntu-drivers install (Ubuntu) and restart, or "
        "start a container with --gpus all"
    )


def _has_card() -> bool:
    """Look for a display or compute card of NVIDIA's among the PCI devices."""
    for device in _PCI.glob("*"):
        try:
            vendor, kind = ((device / name).read_text() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor.strip() == "0x10de" and kind.startswith(("0x03", "0x12")):
            return True
    return False


def gpus(*, memory: bool = False) -> list[Gpu]:
    """Return the GPUs in the driver's order; none where there is no working driver.

    Free memory is asked for on request only, since the answer takes a context, and so some time.
    """
    if driver_problem():
        return []
    driver = _libcuda()
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    return [_gpu(driver, index, memory=memory) for index in range(count.value)]


def _libcuda() -> Any:
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")


def _gpu(driver: Any, index: int, *, memory: bool) -> Gpu:
    device, version = ctypes.c_int(), ctypes.c_int()
    name, total = ctypes.create_string_buffer(256), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    driver.cuDriverGetVersion(ctypes.byref(version))
    major, minor = (_attribute(driver, a, device) for a in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR))
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=f"{major}.{minor}",
        total=total.value,
        free=_free(driver, device) if memory else None,
        driver=f"CUDA {version.value // 1000}.{version.value % 1000 // 10}",
    )


def _attribute(driver: Any, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value


def _free(driver: Any, device: ctypes.c_int) -> int | None:
    """Ask for free memory, which takes a context: the primary one, given back afterwards."""
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) != 0:
        return None
    try:
        if driver.cuCtxPushCurrent_v2(context) != 0:
            return None
        code = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return free.value if code == 0 else None
