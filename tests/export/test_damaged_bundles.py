"""Bundles whose records were damaged are shown and verified, or refused in one line.

`DAMAGED_BUNDLES=1000 pytest tests/export/test_damaged_bundles.py` tries more than every day.
"""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import toy
from toy_damage import copied, damage

from lvdm_engines.bundle import REFERENCES, load_bundle
from lvdm_export import cli
from lvdm_export.verify.probes import VERSION

CASES = int(os.environ.get("DAMAGED_BUNDLES", "40"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with everything that an export records."""
    folder = tmp_path_factory.mktemp("bundles") / "whole"
    toy.write_bundle(folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    entry = {"max_rel": 1e-6, "against": "torch fp32", "batches": [1, 3], "equal_rows": 0.0}
    manifest["parity"] = {"predict": entry, "interpolate": entry}
    manifest["quality"] = {"psnr_db": 30.5, "measured_on": "64 clips", "reached": ["all"]}
    manifest["provenance"]["notes"] = {"predict": {"step": 100}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    answers: dict[str, Any] = {}
    for name, clip in (("predict", 4), ("interpolate", 5)):
        kept = [[0.25] * min(48, 16 * clip)] * 2
        size = 2 * 2 * clip * 2 * 2  # two rows
        answers[name] = {"rule": VERSION, "size": size, "peaks": [5.0, 5.0], "values": kept}
    (folder / REFERENCES).write_bytes(msgspec.json.encode(answers))
    return folder


def test_the_whole_bundle_is_shown_and_compared(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["inspect", str(whole)]) == 0
    assert "psnr db 30.5" in capsys.readouterr().out
    assert cli.run(["verify", "-q", str(whole)]) == 1
    assert "differs from torch" in capsys.readouterr().err  # the answers are no network's


@pytest.mark.parametrize("case", range(CASES))
def test_a_damaged_bundle_is_shown_and_verified_or_refused_in_one_line(
    case: int, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng([17, case])
    bundle = copied(whole, tmp_path / "bundle")
    name = ("manifest.json", REFERENCES)[int(rng.integers(2))]
    way = damage(bundle / name, rng)
    for words in (["inspect"], ["inspect", "--json"], ["verify", "-q"]):
        code = cli.run([*words, str(bundle)])
        told = capsys.readouterr()
        assert code in (0, 1), (name, way, words)
        assert (code == 1) == bool(told.err), (name, way, words, told.err)
        assert told.err.count("\n") == code, (name, way, words, told.err)
        assert all(line.isprintable() for line in told.out.split("\n")), (name, way, words)
        assert "--json" in words or len(told.out) < 20_000, (name, way, words)
        assert len(told.err) < 2500, (name, way, words)
        assert code == 0 or str(bundle) in told.err, (name, way, words, told.err)


@pytest.mark.parametrize(
    "changed",
    [
        {"peaks": [5.0]},
        {"values": []},
        {"values": [[0.25] * 3] * 2},
        {"values": [[0.25] * 48] * 1000, "peaks": [5.0] * 1000},
        {"size": 10**30},
        {"values": [[[0.25] * 48] * 2] * 2},
    ],
)
def test_answers_of_another_shape_are_refused(
    changed: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = copied(whole, tmp_path / "bundle")
    answers = json.loads((bundle / REFERENCES).read_bytes())
    answers["predict"] |= changed
    (bundle / REFERENCES).write_text(json.dumps(answers))
    assert cli.run(["verify", "-q", str(bundle)]) == 1
    assert f"{REFERENCES}: the recorded answers are damaged" in capsys.readouterr().err


def test_a_free_dimension_of_any_name_is_probed_at_the_models_size(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = copied(whole, tmp_path / "bundle")
    text = (bundle / "manifest.json").read_text().replace('"t"', '"frames"')
    (bundle / "manifest.json").write_text(text)
    assert load_bundle(bundle).manifest.graphs["predict"].inputs[0].shape[2] == "frames"
    (bundle / REFERENCES).unlink()
    assert cli.run(["verify", "-q", str(bundle)]) in (0, 1)
    assert "predict" in "".join(capsys.readouterr())
