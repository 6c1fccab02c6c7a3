"""Who may import whom, read from the source of every file, and what an import really loads."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from toy_files import python

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
# Inside a package, lowest first: a module imports what stands in its own row or below.
LAYERS = {
    "lvdm_engines": [
        "errors lock",
        "atomic defaults",
        "manifest manifest_json preview_map contract hub onnx_data bundle bundle_writer session",
        "backends.plan_facts backends.backend backends.processor backends.user_folders",
        "backends.gpu backends.trial",
        "backends.ort backends.ov backends.trt",
        "opening command_line completion ranges",
    ],
    "lvdm_rt": [
        "diffusion",
        "bounds checks progress background model video",
        "text",
        "options presets",
        "long",
        "decoding",
        "request",
        "running",
        "pipeline",
        "commands",
        "scale serve",
        "cli",
    ],
    "lvdm_export": [
        "nets",
        "checkpoint",
        "config",
        "verify",
        "graph text",
        "inputs",
        "build compilation inspection flags",
        "cli",
    ],
    "lvdm_tools": [
        "outputs data",
        "quality bench",
        "train.config train.same train.state train.networks train.draws train.pixels",
        "train.learner train.sheets train.model_json",
        "train.autoencoder train.diffusion",
        "train.loop train.start",
        "cli",
    ],
}
# where heavy or optional libraries may be imported, by path from the root
HOMES = {
    "torch": ("export/", "tools/"),
    "onnx": ("export/", "tools/"),
    "onnxscript": ("export/",),
    "yaml": ("export/", "tools/"),
    "av": ("runtime/lvdm_rt/video", "tools/"),
    "onnxruntime": ("engines/lvdm_engines/backends/", "export/"),
    "openvino": ("engines/lvdm_engines/backends/",),
    "tensorrt": ("engines/lvdm_engines/backends/",),
    "tensorrt_rtx": ("engines/lvdm_engines/backends/",),
    "cuda": ("engines/lvdm_engines/backends/",),
    "polygraphy": ("export/",),
    "ray": ("runtime/lvdm_rt/scale/",),
    "starlette": ("runtime/lvdm_rt/serve/",),
    "uvicorn": ("runtime/lvdm_rt/serve/",),
    "prometheus_client": ("runtime/lvdm_rt/serve/",),
    "tokenizers": ("runtime/lvdm_rt/text/", "export/lvdm_export/text/", "tools/lvdm_tools/train/"),
}
FILES = sorted(file for folder in PACKAGES.values() for file in folder.rglob("*.py"))


def named(file):
    """The dotted name of a module or package."""
    root = next(folder for folder in PACKAGES.values() if folder in file.parents)
    parts = file.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {named(file): file for file in FILES}


@cache
def dotted(file):
    """What a file imports anywhere: lazily, for types only, by importlib.import_module("…")."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            below = {f"{module}.{alias.name}" for alias in node.names}
            names |= below & MODULES.keys()
            names |= {module} if below - MODULES.keys() else set()  # or what it has imported
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return frozenset(names)


def imported(file):
    """Top-level names that a file imports anywhere."""
    return {name.split(".")[0] for name in dotted(file)}


ARROWS_OF_MODULES = {
    name: sorted(dotted(file) & MODULES.keys() - {name}) for name, file in MODULES.items()
}


def layer(module):
    """The row of LAYERS in which a module stands; the package itself stands above all."""
    package, _, inner = module.partition(".")
    rows = LAYERS[package]
    places = {name: row for row, names in enumerate(rows) for name in names.split()}
    while inner and inner not in places:
        inner = inner.rpartition(".")[0]
    return places[inner] if inner else len(rows)


def test_no_modules_import_each_other():
    TopologicalSorter(ARROWS_OF_MODULES).prepare()  # or CycleError, which names them


def test_every_module_stands_in_a_layer_and_imports_from_none_above():
    plain = [m for m in MODULES if layer(m) == len(LAYERS[m.split(".")[0]]) and m.count(".") > 0]
    assert [m for m in plain if MODULES[m].name != "__init__.py"] == []
    upward = [
        f"{module} -> {other}"
        for module, others in ARROWS_OF_MODULES.items()
        for other in others
        if module.split(".")[0] == other.split(".")[0] and layer(other) > layer(module)
    ]
    assert upward == []


def test_diffusion_knows_numpy_only():
    known = {
        "numpy",
        "lvdm_rt",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "math",
        "typing",
    }
    inside = PACKAGES["lvdm_rt"] / "diffusion"
    for file in inside.glob("*.py"):
        assert imported(file) <= known
        own = {name for name in dotted(file) if name.startswith("lvdm")}
        assert all(name.startswith("lvdm_rt.diffusion.") for name in own)


def test_every_package_says_what_it_owns_and_what_it_does_not_know():
    for file in FILES:
        if file.name == "__init__.py":
            told = ast.get_docstring(ast.parse(file.read_text())) or ""
            owns, _, rest = told.partition("\n\n")
            assert len(owns) > 20, file
            assert re.search(r"Knows (.*\n)*.*\b(no|none|not|nothing)\b", rest), file


def test_an_import_of_a_module_and_a_name_beside_it_is_two_arrows(tmp_path):
    (tmp_path / "a.py").write_text("from lvdm_rt.video import MAX_PIXELS, spec\n")
    assert dotted(tmp_path / "a.py") == {"lvdm_rt.video", "lvdm_rt.video.spec"}


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


@pytest.mark.slow
@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_are_imported_only_where_they_live(library):
    users = [str(file.relative_to(ROOT)) for file in FILES if library in imported(file)]
    assert [user for user in users if not user.startswith(HOMES[library])] == []


def test_no_import_is_relative():
    assert [str(file) for file in FILES if "" in imported(file)] == []


@pytest.mark.parametrize(
    "program",
    ["import lvdm_engines", "import lvdm_rt", "from lvdm_rt import GenerateOptions, Pipeline"],
)
def test_importing_the_runtime_loads_no_engine_library(program):
    heavy = sorted(HOMES)
    done = python(f"{program}\nimport sys\nprint([n for n in {heavy} if n in sys.modules])")
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
