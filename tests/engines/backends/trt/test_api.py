"""Every attribute of TensorRT that our code uses exists in the real bindings.

The bindings need no GPU to be imported, only libraries of the right names; empty ones do.
"""

import ast
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest
from toy_files import compile_library, python

import lvdm_engines.backends

SOURCES = sorted(Path(lvdm_engines.backends.__file__).parent.rglob("*.py"))
# the names that our code gives to the library's objects
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "fault": "ParserError",
    "config": "IBuilderConfig",
    "optimization": "IOptimizationProfile",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "settings": "IRuntimeConfig",
    "kernels": "IRuntimeCache",
    "inspector": "EngineInspector",
    "refitter": "Refitter",
    "weights": "OnnxParserRefitter",
    "storing": "ISerializationConfig",
}
FILES = {"opening.py", "compile.py", "inspection.py", "refit.py", "context.py", "library.py"}
ONLY_RTX = {
    "BuilderFlag.REQUIRE_USER_ALLOCATION",
    "ComputeCapability",
    "CudaGraphStrategy",
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE",
    "DynamicShapesKernelSpecializationStrategy",
    "DynamicShapesKernelSpecializationStrategy.EAGER",
    "EngineValidity",
    "EngineValidity.INVALID",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "IRuntimeCache.deserialize",
    "IRuntimeCache.serialize",
    "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.cuda_graph_strategy",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
    "IRuntimeConfig.set_runtime_cache",
    "Runtime.get_engine_validity",
}
SINCE_10_14 = {"SerializationFlag.INCLUDE_REFIT"}
OLDEST = Path(sys.prefix) / "tensorrt-10.12"  # `make test` puts the bindings there
LIST = """
import json, {module} as trt
names = set()
for name in dir(trt):
    names.add(name)
    names |= {{f"{{name}}.{{inner}}" for inner in dir(getattr(trt, name))}}
print(json.dumps([trt.__version__, sorted(names)]))
"""


START = """
from collections import deque
import tensorrt_bindings as trt
from lvdm_engines.backends.trt.library import TrtLibrary, make_logger
from lvdm_engines.errors import BackendError
errors = deque()
library = TrtLibrary("tensorrt", trt, trt.__version__, make_logger(trt, errors), errors)
for kind in (trt.Runtime, trt.Builder):
    try:
        library.create(kind)
    except BackendError as err:
        print(err)
"""


def dotted(node):
    """The names of a chain such as `self._opened.engine.name`."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else parts


def used(source):
    """What a file uses of the library, as Class.attribute or Enum.MEMBER."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        chain = dotted(node)
        if "trt" in chain[:-1]:
            inside = chain[chain.index("trt") + 1 :]
            if not any(name.startswith("__") for name in inside[:2]):
                found.add(".".join(inside[:2]))
        elif len(chain) > 1 and chain[-2].lstrip("_") in CLASSES:
            found.add(f"{CLASSES[chain[-2].lstrip('_')]}.{chain[-1]}")
    return found


@pytest.fixture(scope="module")
def needed():
    names = set().union(*(used(path.read_text()) for path in SOURCES if path.name in FILES))
    ours = {"IExecutionContext.context"}  # the module of that name
    return names - ours


def real_names(module, environment):
    code = LIST.format(module=module)
    done = python(code, env=environment)
    assert done.returncode == 0, done.stderr
    version, names = json.loads(done.stdout)
    return version, set(names)


def empty_libraries(bindings, folder):
    """An environment where bindings find empty libraries with just the symbols they look up."""
    binary = next(bindings.glob("tensorrt*.so")).read_bytes()
    wanted = {name.decode() for name in re.findall(rb"libnv\w+\.so\.\d+", binary)}
    symbols = re.findall(
        rb"\x00((?:create|get|init)\w*(?:_INTERNAL|Registry|Version|Plugins))", binary
    )
    functions = "".join(f"void *{s.decode()}(void) {{ return 0; }}\n" for s in sorted(set(symbols)))
    for library in wanted:
        compile_library(folder, functions, library, f"-Wl,-soname,{library}")
    path = os.pathsep.join([str(bindings.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": path}


@pytest.fixture(scope="module")
def newest(tmp_path_factory):
    spec = importlib.util.find_spec("tensorrt_bindings")
    if spec is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    folder = Path(spec.submodule_search_locations[0])
    return empty_libraries(folder, tmp_path_factory.mktemp("newest"))


@pytest.fixture(scope="module")
def oldest(tmp_path_factory):
    folder = OLDEST / "tensorrt_bindings"
    if not folder.is_dir():
        pytest.skip("tensorrt-cu12-bindings 10.12 is not installed; `make test` does so")
    return empty_libraries(folder, tmp_path_factory.mktemp("oldest"))


@pytest.fixture(scope="module")
def tensorrt(newest):
    return real_names("tensorrt_bindings", newest)


def test_the_search_sees_what_the_code_uses(needed):
    assert {
        "Builder.build_serialized_network",
        "OnnxParser.parse_from_file",
        "IExecutionContext.execute_async_v3",
        "ICudaEngine.get_device_memory_size_for_profile_v2",
        "Runtime.engine_host_code_allowed",
        "BuilderFlag.TF32",
        "OnnxParserRefitter",
        "Refitter.refit_cuda_engine",
        "SerializationFlag.INCLUDE_REFIT",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "EngineInspector.get_engine_information",
    } <= needed
    assert len(needed) > 60


def test_everything_used_exists_in_tensorrt_11(needed, tensorrt):
    version, names = tensorrt
    assert version.startswith("11.")
    assert needed - names - ONLY_RTX == set()


def test_everything_used_exists_in_the_oldest_tensorrt_or_is_asked_for_first(needed, oldest):
    version, names = real_names("tensorrt_bindings", oldest)
    assert version.startswith("10.12.")
    assert needed - names - ONLY_RTX == SINCE_10_14


def test_what_only_rtx_has_really_is_not_in_tensorrt(tensorrt):
    assert tensorrt[1] & ONLY_RTX == set()


def test_everything_used_exists_in_tensorrt_rtx(needed):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    _, names = real_names("tensorrt_rtx", dict(os.environ))
    assert needed - names == set()


@pytest.mark.parametrize("age", ["newest", "oldest"])
def test_bindings_that_get_a_null_pointer_end_in_one_line(age, request):
    done = python(START, env=request.getfixturevalue(age))
    assert done.stdout.splitlines() == [
        f"tensorrt: cannot create a {kind}: tensorrt gives no reason; update the NVIDIA driver"
        for kind in ("Runtime", "Builder")
    ], done.stderr
