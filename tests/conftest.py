"""Fixtures shared by all tests: recorded outputs of the authors' code and their weights."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


def rule_weight(source_key: str, shape: list[int]) -> np.ndarray:
    """Make a weight tensor from its name; golden/ was recorded on weights made this way."""
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(source_key.encode())))
    n = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) >= 2:
        return n * np.float32(0.8 / np.sqrt(np.prod(shape[1:])))
    return (
        np.float32(1) + np.float32(0.1) * n
        if source_key.endswith("weight")
        else np.float32(0.1) * n
    )


def weights_of(rows: list[list[Any]]) -> dict[str, np.ndarray]:
    """Make all weights of one network from rows of [key, shape, source key]."""
    return {key: rule_weight(source, shape) for key, shape, source in rows}


@dataclass(frozen=True)
class GoldenCase:
    """One recorded case: the official configuration, the weights and the recorded arrays."""

    config: dict[str, Any]
    weights: dict[str, Any]  # key → array; for whole runs network name → (key → array)
    arrays: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], GoldenCase]:
    """Load a case of tests/golden by name."""

    def load(name: str) -> GoldenCase:
        with np.load(GOLDEN / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        config = json.loads(str(arrays.pop("config")))
        rows = json.loads(str(arrays.pop("weights"))) if "weights" in arrays else []
        if isinstance(rows, dict):
            weights = {network: weights_of(r) for network, r in rows.items()}
        else:
            weights = weights_of(rows)
        return GoldenCase(config, weights, arrays)

    return load
