import json

import pytest

from lvdm_engines.backends.trt_inspect import layer_facts


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
