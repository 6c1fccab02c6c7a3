"""Files as tests make, change and compare them, and programs as they start them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

GENERATE = "import sys; from lvdm_rt.cli import main; sys.argv[0] = 'lvdm-rt'; main()"


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def names(folder: Path) -> list[str]:
    """Return what lies in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def array_file(header: str, data: bytes = b"") -> bytes:
    """Return the file of an array, in the format of .npy, with a header of its own making."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@contextmanager
def edited(path: Path) -> Iterator[Any]:
    """Give what a JSON file holds, and write what became of it."""
    document = json.loads(path.read_text())
    yield document
    path.write_text(json.dumps(document))


def python(code: str, *arguments: object, **how: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program in a process of its own, where warnings are errors."""
    words = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, **how)


def compile_library(folder: Path, source: str, name: str, *options: str) -> Path:
    """Compile C into a shared library; skips where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    words = ["gcc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", name, *options]
    subprocess.run(words, cwd=folder, input=source, text=True, check=True)
    return folder / name


def with_tests_on_path() -> dict[str, str]:
    """Return an environment in which a program finds the toys."""
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
