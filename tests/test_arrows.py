"""Who may import whom, read from the source of every file, and what an import really loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "lvdm_engines": ROOT / "engines/lvdm_engines",
    "lvdm_rt": ROOT / "runtime/lvdm_rt",
    "lvdm_export": ROOT / "export/lvdm_export",
    "lvdm_tools": ROOT / "tools/lvdm_tools",
}
ARROWS = {
    "lvdm_engines": set(),
    "lvdm_rt": {"lvdm_engines"},
    "lvdm_export": {"lvdm_engines"},
    "lvdm_tools": {"lvdm_engines", "lvdm_rt", "lvdm_export"},
}
# where heavy or optional libraries may be imported, by path from the root
HOMES = {
    "torch": ("export/", "tools/"),
    "onnx": ("export/", "tools/"),
    "onnxscript": ("export/",),
    "yaml": ("export/", "tools/"),
    "av": ("runtime/lvdm_rt/video", "tools/"),
    "onnxruntime": ("engines/lvdm_engines/backends/", "export/"),
    "tensorrt": ("engines/lvdm_engines/backends/",),
    "tensorrt_rtx": ("engines/lvdm_engines/backends/",),
    "cuda": ("engines/lvdm_engines/backends/",),
    "polygraphy": ("export/",),
}
FILES = sorted(file for folder in PACKAGES.values() for file in folder.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Top-level names that a file imports anywhere, importlib.import_module("…") included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_each_other_only_along_the_arrows(package):
    allowed = ARROWS[package] | {package}
    wrong = {
        str(file.relative_to(ROOT)): found
        for file in FILES
        if PACKAGES[package] in file.parents
        and (found := (imported(file) & PACKAGES.keys()) - allowed)
    }
    assert not wrong


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_are_imported_only_where_they_live(library):
    users = [str(file.relative_to(ROOT)) for file in FILES if library in imported(file)]
    assert [user for user in users if not user.startswith(HOMES[library])] == []


def test_no_import_is_relative():
    assert [str(file) for file in FILES if "" in imported(file)] == []


@pytest.mark.parametrize("package", ["lvdm_engines", "lvdm_rt"])
def test_importing_the_runtime_loads_no_engine_library(package):
    heavy = sorted(HOMES)
    code = f"import sys, {package}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
