"""What can be told of OpenVINO without it."""

import sys
from types import ModuleType

import pytest

from lvdm_engines.backends.ov import library
from lvdm_engines.errors import DeviceMemoryError, SessionError


def test_without_openvino_the_extra_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert library.unusable() == "OpenVINO is not installed; pip install 'lvdm-rt[openvino]'"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package of the name openvino that says this when it is imported."""

    def install(code):
        (tmp_path / "openvino.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "openvino", raising=False)

    yield install
    sys.modules.pop("openvino", None)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "import abacus_of_openvino",
            "openvino needs abacus_of_openvino, which is not installed; pip install abacus",
        ),
        (
            "raise ImportError('no libopenvino.so')",
            "openvino cannot be imported (no libopenvino.so); pip install --force-reinstall",
        ),
    ],
)
def test_an_import_that_fails_is_told_with_its_repair(installed, code, told):
    installed(code)
    assert library.unusable().startswith(told)


def test_openvino_is_imported_without_its_telemetry(installed, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino_telemetry", ModuleType("openvino_telemetry"))
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    installed(
        "told = True\ntry:\n    import openvino_telemetry\nexcept ImportError:\n    told = False"
    )
    assert library.load().told is False
    assert "openvino_telemetry" not in sys.modules  # whoever wants it may have it


def test_errors_are_one_line_without_places_in_the_library():
    err = RuntimeError(
        "Exception from src/inference/src/cpp/infer_request.cpp:224:\n"
        "Exception from src/plugins/intel_cpu/src/node.cpp:794:\n"
        "Infer Request was canceled\n\n"
    )
    told = library.session_error("g", "run", err)
    assert (type(told), str(told)) == (SessionError, "g: cannot run: Infer Request was canceled")


@pytest.mark.parametrize(
    "err",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Check 'ptr' failed at src/plugins/a.cpp:257:\nFailed to allocate 4 bytes\n"),
    ],
)
def test_a_lack_of_memory_is_told_from_other_failures(err):
    told = library.session_error("g", "run", err)
    assert isinstance(told, DeviceMemoryError)
    assert str(told).startswith("g: out of memory (")
