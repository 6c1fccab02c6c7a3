from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toy

from lvdm_engines.bundle import Bundle


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Write a bundle whose predict and interpolate graphs are one file."""
    return lambda folder="bundle", **options: toy.write_bundle(tmp_path / folder, **options)


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    return toy.feeds()
