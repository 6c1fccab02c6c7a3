"""Settings of all tests of the tools."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # Tiny tensors gain nothing from threads, and lose a lot where other work shares the cores.
    torch.set_num_threads(1)
