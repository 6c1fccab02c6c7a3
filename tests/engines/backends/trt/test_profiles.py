"""Ranges of sizes, and the profiles that they make."""

import pytest
import toy

from lvdm_engines.backends.plan_facts import PlanOptions, Range
from lvdm_engines.backends.trt.profiles import choose, profiles_for, split
from lvdm_engines.errors import OptionsError
from lvdm_engines.manifest import DistilledFacts


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


def test_a_student_has_profiles_for_every_length_of_clip():
    names = ("predict", "interpolate", "distilled")
    graphs = dict.fromkeys(names, toy.graph_facts())
    manifest = toy.manifest(model=toy.model_facts(distilled=DistilledFacts(4)), graphs=graphs)
    profiles = profiles_for(manifest, ("distilled",), PlanOptions())
    together = profiles_for(manifest, names[:2], PlanOptions())
    assert sorted(map(str, profiles)) == sorted(map(str, together))
    for clip in (4, 5):
        assert choose(profiles, {"b": 1, "t": clip}) is not None
    assert choose(profiles, {"b": 1, "t": 3}) is None
