"""What could overflow in half precision is measured, and refused by name."""

import pytest
import torch

from lvdm_engines.errors import ExportError
from lvdm_export.graph import activations


def test_a_network_that_would_overflow_in_half_precision_is_refused_by_name():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with torch.no_grad():
        network[0].weight.fill_(1e4)
    found = activations.measure(network, [{"input": torch.ones(1, 2)}])
    with pytest.raises(ExportError, match=r"decoder: 0 addmm reaches 2e\+04, expected at most"):
        activations.check("decoder", network, found)


def test_what_is_measured_belongs_to_the_network_not_to_the_measurement():
    class Island(torch.nn.Identity):
        keep_float32 = True

    network = torch.nn.Sequential(torch.nn.Linear(2, 2), Island())
    found = activations.measure(torch.nn.Sequential(network), [{"input": torch.ones(1, 2)}])
    assert "0.1 output" in found.half
    assert not [name for name in (*found.half, *found.islands) if "aminmax" in name]
