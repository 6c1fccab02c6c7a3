"""What pyproject.toml promises to pip."""

import os
import re
import subprocess
import sys
import tomllib
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
ASKED = {"": PROJECT["project"]["dependencies"]} | EXTRAS


@pytest.mark.parametrize("extra", ASKED)
def test_only_one_extra_at_a_time_brings_an_onnx_runtime(extra):
    brings = [x for x in ASKED[extra] if x.startswith("onnxruntime")]
    assert len(brings) == (extra in ("cpu", "cuda", "cuda12"))


@pytest.mark.parametrize("extra", ASKED)
def test_every_dependency_has_a_lowest_and_a_highest_version(extra):
    name = re.compile(r"^[\w-]+")
    asked = [x for x in ASKED[extra] if not x.startswith("lvdm-rt[")]
    lowest = {name.match(x)[0] for x in asked if ">=" in x}
    highest = {name.match(x)[0] for x in asked if re.search(r",<\d", x)}
    assert lowest == highest == {name.match(x)[0] for x in asked}


def installation(index):
    """What `make install` would run, with an index of CPU builds at an address."""
    make = ("make", "--dry-run", "--always-make", "install", f"VENV={sys.prefix}")
    told = subprocess.run(
        (*make, f"CPU_TORCH={index}"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"no_proxy": "127.0.0.1"},
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_torch_comes_from_the_index_of_cpu_builds_where_that_answers(tmp_path):
    (tmp_path / "torch").mkdir()
    with HTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)
    ) as here:
        Thread(target=here.serve_forever, daemon=True).start()
        index = f"http://127.0.0.1:{here.server_port}"
        assert f"--extra-index-url {index}" in installation(index)
        here.shutdown()
    assert "--extra-index-url" not in installation(index)
