"""What pyproject.toml promises to pip."""

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
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
