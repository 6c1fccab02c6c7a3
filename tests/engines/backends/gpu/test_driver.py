# ruff: noqa: N802 - the fake has the driver's names
from unittest.mock import Mock

import pytest

from lvdm_engines.backends.gpu import driver


class FakeCuda:
    """libcuda with two GPUs; `context` is the code that a context costs."""

    def __init__(self, start=0, count=2, context=0):
        self.context, self.retained = context, 0
        self.cuInit = lambda flags: start
        self.cuDeviceGetCount = answering(count)
        self.cuDeviceTotalMem_v2 = answering(80 << 30)
        self.cuDriverGetVersion = answering(13020)
        self.cuMemGetInfo_v2 = answering(70 << 30)
        self.cuCtxPushCurrent_v2 = self.cuCtxPopCurrent_v2 = answering()

    def cuDeviceGet(self, device, index):
        return answering(index)(device)

    def cuDeviceGetName(self, name, size, device):
        name.value = f"NVIDIA GPU {device.value}".encode()
        return 0

    def cuDeviceGetAttribute(self, value, which, device):
        return answering({75: 9, 76: device.value}[which])(value)

    def cuDevicePrimaryCtxRetain(self, context, device):
        self.retained += self.context == 0
        return self.context

    def cuDevicePrimaryCtxRelease_v2(self, device):
        self.retained -= 1
        return 0


def answering(*values):
    """A function of libcuda that puts values where its first arguments point."""

    def answer(*places):
        for place, value in zip(places, values, strict=False):
            place._obj.value = value
        return 0

    return answer


@pytest.fixture
def libcuda(monkeypatch):
    def make(**facts):
        fake = FakeCuda(**facts)
        monkeypatch.setattr(driver, "_libcuda", lambda: fake)
        driver.driver_problem.cache_clear()
        return fake

    yield make
    driver.driver_problem.cache_clear()


def test_gpus_are_described_with_their_free_memory(libcuda):
    fake = libcuda()
    first, second = driver.gpus(memory=True)
    assert first == driver.Gpu("NVIDIA GPU 0", "9.0", 80 << 30, 70 << 30, "CUDA 13.2")
    assert second.capability == "9.1"
    assert fake.retained == 0


def test_a_gpu_that_gives_no_context_has_unknown_free_memory(libcuda):
    libcuda(context=2)
    assert [gpu.free for gpu in driver.gpus(memory=True)] == [None, None]


def test_no_context_is_made_unless_free_memory_is_asked_for(libcuda):
    fake = libcuda()
    fake.cuDevicePrimaryCtxRetain = None
    assert [gpu.free for gpu in driver.gpus()] == [None, None]


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"start": 100}, "reports error 100 at start; unset CUDA_VISIBLE_DEVICES, or start the"),
        ({"start": 803}, "reports error 803 at start; it was updated while loaded; restart"),
        ({"start": 7}, "reports error 7 at start; see what nvidia-smi and dmesg say"),
        ({"count": 0}, "sees no GPU; unset CUDA_VISIBLE_DEVICES, or start the container with"),
    ],
)
def test_a_driver_without_a_gpu_says_what_to_do(libcuda, facts, problem):
    libcuda(**facts)
    assert driver.driver_problem().startswith(f"the NVIDIA driver {problem}")
    assert driver.gpus() == []


@pytest.mark.parametrize(
    ("vendor", "kind", "problem"),
    [
        ("0x10de", "0x030200", "there is an NVIDIA GPU but no driver (libcuda.so.1); install it"),
        ("0x10de", "0x040300", "found neither an NVIDIA GPU nor its driver"),  # its sound
        ("0x1002", "0x030000", "found neither an NVIDIA GPU nor its driver"),
    ],
)
def test_a_machine_without_a_driver_is_told_whether_one_would_help(
    monkeypatch, tmp_path, vendor, kind, problem
):
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "0000:01:00.0" / "class").write_text(f"{kind}\n")
    (tmp_path / "0000:02:00.0").mkdir()  # cannot be read
    monkeypatch.setattr(driver, "_PCI", tmp_path)
    monkeypatch.setattr(driver, "_libcuda", Mock(side_effect=OSError))
    driver.driver_problem.cache_clear()
    assert driver.driver_problem().startswith(problem)
    assert driver.gpus() == []
    driver.driver_problem.cache_clear()
