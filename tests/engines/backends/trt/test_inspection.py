import json
import logging

import pytest

from lvdm_engines.backends.trt.inspection import layer_facts, summary_of


def told(key, half, single):
    outputs = [{"Name": "a", key: half}, {"Name": "b", key: single}]
    layers = [
        {"Name": "one", "LayerType": "CaskConvolution", "Outputs": outputs[:1]},
        {"Name": "two", "LayerType": "CaskConvolution", "Outputs": outputs[:1]},
        {"Name": "norm", "LayerType": "kgen", "Outputs": outputs},
    ]
    return json.dumps({"Layers": layers, "Bindings": []})


@pytest.mark.parametrize(
    "text",
    [
        told("DataType", "Half", "Float"),
        told("Format/Datatype", "Row major linear Half", "Row major linear Float"),
    ],
)
def test_layers_and_types_are_counted_in_the_words_of_either_version(text):
    assert layer_facts(text) == {
        "layers": 3,
        "kinds": {"CaskConvolution": 2, "kgen": 1},
        "output_types": {"Half": 3, "Float": 1},
    }


@pytest.mark.parametrize(
    ("text", "layers"), [('{"Layers": ["one", "two"]}', 2), ("[]", 0), ("not json", None)]
)
def test_what_the_inspector_does_not_say_is_left_out(text, layers):
    assert layer_facts(text).get("layers") == layers


def test_a_finished_plan_is_not_lost_where_it_cannot_be_summarized(fake_library, caplog):
    def null(logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    fake_library.trt.Runtime = null
    with caplog.at_level(logging.INFO):
        assert summary_of(fake_library, b"the plan") == {}
    assert "the plan is not summarized" in caplog.text
