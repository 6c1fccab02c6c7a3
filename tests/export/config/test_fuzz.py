"""Damaged configurations and checkpoints build as far as before, or are refused in one line.

`DAMAGED_MODELS=2600 pytest tests/export/config/test_fuzz.py` tries more cases than every day.
"""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_damage import copied, damage

from lvdm_engines.errors import LvdmError
from lvdm_export import build as builder
from lvdm_export.build import BuildOptions, Source, build

CASES = int(os.environ.get("DAMAGED_MODELS", "30"))
FILES = {  # what a build reads
    "official": ("model.yaml", "model.yaml", "model.ckpt"),
    "ours": (
        "unet/model.json",
        "unet/model.safetensors",
        "autoencoder/model.json",
        "autoencoder/model.safetensors",
    ),
}
ROOM = 6 << 30  # bytes of addresses beside those in use


class _WeightsReadError(Exception):
    """All networks have their weights; what follows is the export."""


@pytest.fixture(autouse=True)
def _within_bounds() -> Iterator[None]:
    """Make of an allocation without bounds an error, before it takes the machine's memory."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def options(kind: str, models: Path, out: Path) -> BuildOptions:
    if kind == "official":
        source = Source(models / "model.yaml", models / "model.ckpt")
        return BuildOptions(denoisers={"predict": source, "interpolate": source}, out=out)
    source = Source(models / "unet/model.json", models / "unet/model.safetensors")
    autoencoder = models / "autoencoder/model.safetensors"
    return BuildOptions(denoisers={"short": source}, autoencoder=autoencoder, out=out)


@pytest.fixture
def _not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a build when its last network has been read, instead of exporting any."""
    nothing = SimpleNamespace(facts=None, parity={}, references={})

    def export(_target: Any, _graph: Any, names: tuple[str, ...]) -> Any:
        if names in (("encoder",), ("decoder",)):
            return nothing
        raise _WeightsReadError

    monkeypatch.setattr(builder, "export_graph", export)


@pytest.mark.usefixtures("_not_exported")
@pytest.mark.parametrize("kind", FILES)
def test_a_whole_model_is_read_to_the_last_network(
    kind: str, official: Any, ours: Any, tmp_path: Path
) -> None:
    whole = official.config.parent if kind == "official" else ours.config.parents[1]
    with pytest.raises(_WeightsReadError):
        build(options(kind, whole, tmp_path / "out"), lambda _line: None)


@pytest.mark.slow
@pytest.mark.usefixtures("_not_exported")
@pytest.mark.parametrize("case", range(CASES))
def test_a_damaged_model_is_read_or_refused_in_one_line_that_names_the_file(
    case: int, official: Any, ours: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng([11, case])
    kind = ("official", "ours")[case % 2]
    whole = official.config.parent if kind == "official" else ours.config.parents[1]
    models = copied(whole, tmp_path / "models")
    name = FILES[kind][int(rng.integers(len(FILES[kind])))]
    way = damage(models / name, rng)
    with pytest.raises((LvdmError, _WeightsReadError)) as caught:
        build(options(kind, models, tmp_path / "out"), lambda _line: None)
    if isinstance(caught.value, LvdmError):
        told = str(caught.value)
        assert told.isprintable(), (name, way, told)
        assert len(told) < 2500, (name, way, told)
        assert str(models) in told, (name, way, told)
    assert not (tmp_path / "out").exists()
