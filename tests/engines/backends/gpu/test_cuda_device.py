"""The real cuda-core, over a driver that keeps a GPU's memory in the host's.

Runs in a process of its own, since a driver is loaded once.
"""

import importlib.util
import os
from pathlib import Path

import pytest
from toy_files import compile_library, python

SETUP = """
import ctypes
import numpy as np
from lvdm_engines.backends.gpu import driver
from lvdm_engines.backends.gpu.scratch import SharedScratch
from lvdm_engines.backends.gpu.cuda_device import CudaDevice
from lvdm_engines.errors import BackendError, DeviceMemoryError

def free():
    return driver.gpus(memory=True)[0].free

device = CudaDevice(0)
stream = device.stream()
before = free()
"""


@pytest.fixture(scope="module")
def on_fake_gpu(tmp_path_factory):
    for module in ("cuda.core", "cuda.bindings"):
        if importlib.util.find_spec("cuda") is None or importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    source = Path(__file__).with_name("fake_cuda.c").read_text()
    built = compile_library(tmp_path_factory.mktemp("driver"), source, "libcuda.so.1", "-ldl")
    settings = {"LD_LIBRARY_PATH": str(built.parent), "FAKE_CUDA_BYTES": str(1 << 20)}

    def run(code):
        done = python(SETUP + code, env=os.environ | settings)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


def test_bytes_travel_to_the_device_and_back(on_fake_gpu):
    told = on_fake_gpu("""
memory, there, back = device.allocate(1000, stream), device.pin(1000), device.pin(1000)
there.array[:] = np.arange(1000) % 251
back.array[:] = 0
stream.upload(there, memory, 900)
stream.download(memory, back, 800)
stream.sync()
print((back.array[:800] == there.array[:800]).all(), back.array[800:].any(), memory.address % 256)
memory.close(), there.close(), back.close()
print(free() == before)
""")
    assert told == ["True", "False", "0", "True"]


def test_work_is_recorded_on_the_stream_and_launched(on_fake_gpu):
    told = on_fake_gpu("""
recording = stream.record(lambda handle: print(handle == stream.handle))
recording.launch()
recording.close()
other = device.stream()
other.wait(stream.mark())
other.sync()
other.close()
""")
    assert told == ["True"]


def test_a_failure_while_recording_leaves_the_stream_usable(on_fake_gpu):
    told = on_fake_gpu("""
def fail(handle):
    raise DeviceMemoryError("no")

try:
    stream.record(fail)
except DeviceMemoryError as err:
    print(err)
stream.record(lambda handle: None).launch()
stream.sync()
""")
    assert told == ["no"]


def test_the_first_failure_is_told_where_ending_the_recording_fails_too(on_fake_gpu):
    told = on_fake_gpu("""
from types import SimpleNamespace
from lvdm_engines.backends.gpu.cuda_device import CudaStream

class Builder:
    stream = SimpleNamespace(handle=7)
    def begin_building(self, mode):
        pass
    def end_building(self):
        raise RuntimeError("capture was invalidated")
    def close(self):
        print("closed")

def fail(handle):
    raise DeviceMemoryError("no")

for work in (fail, lambda handle: None):
    try:
        CudaStream(SimpleNamespace(create_graph_builder=Builder)).record(work)
    except Exception as err:
        print(type(err).__name__, str(err).split(";")[0].replace(" ", "_"))
""")
    assert told == [
        "closed",
        "DeviceMemoryError",
        "no",
        "closed",
        "SessionError",
        "cannot_capture_a_CUDA_graph:_capture_was_invalidated",
    ]


def test_too_much_memory_is_an_error_of_its_own_and_costs_nothing(on_fake_gpu):
    told = on_fake_gpu("""
for take in (lambda: device.allocate(1 << 21, stream), lambda: device.pin(1 << 21)):
    try:
        take()
    except DeviceMemoryError as err:
        print(str(err).startswith("cannot "), "out of GPU memory" in str(err), "\\n" in str(err))
print(free() == before)
""")
    assert told == ["True", "True", "False"] * 2 + ["True"]


def test_a_gpu_that_is_not_there_is_named(on_fake_gpu):
    told = on_fake_gpu("""
try:
    CudaDevice(3)
except BackendError as err:
    print(err)
""")
    assert " ".join(told) == "there is no GPU 3; see nvidia-smi"


def test_activations_are_shared_and_freed(on_fake_gpu):
    told = on_fake_gpu("""
scratch = SharedScratch(device)
for nbytes in (1000, 500, 4000):
    with scratch.turn(stream, nbytes) as address:
        ctypes.memset(address, 1, nbytes)
    print(before - free())
scratch.close()
print(free() == before)
""")
    assert told == ["1000", "1000", "4000", "True"]


def test_a_gpu_is_described_by_the_driver(on_fake_gpu):
    told = on_fake_gpu("""
gpu = driver.gpus()[0]
print(gpu.name, gpu.capability, gpu.total, gpu.driver)
""")
    assert told == ["Fake", "9.0", str(1 << 20), "CUDA", "13.2"]
