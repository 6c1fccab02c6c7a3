"""Ranges of sizes, and the profiles that they make."""

import pytest

from lvdm_engines.backends.plan_facts import Range
from lvdm_engines.backends.trt.profiles import split
from lvdm_engines.errors import OptionsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1:8:32", Range(1, 8, 32)), ("4", Range(4, 4, 4)), ("2:2:2", Range(2, 2, 2))],
)
def test_a_range_is_read_from_text(text, expected):
    assert Range.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0:1:2", "3:2:4", "1:5:4", "1:2", "a:b:c", "1:2:3:4", "-1", "9" * 5000]
)
def test_an_impossible_range_is_refused_with_an_example(text):
    with pytest.raises(OptionsError, match=r"expected MIN:OPT:MAX .* such as 1:8:32") as caught:
        Range.parse(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("wide", "parts"),
    [
        ("1:2:8", ["1:2:8"]),
        ("1:8:32", ["1:2:4", "5:8:16", "17:32:32"]),
        ("1:1:32", ["1:1:2", "3:32:32"]),
        ("1:32:32", ["1:4:16", "17:32:32"]),
        ("8:8:8", ["8:8:8"]),
    ],
)
def test_a_wide_range_is_cut_into_adjoining_parts_with_the_optimum_in_one(wide, parts):
    assert [str(part) for part in split(Range.parse(wide))] == parts
