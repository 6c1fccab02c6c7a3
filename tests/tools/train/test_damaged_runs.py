"""A run whose files were damaged resumes, or says in one line which file it is and what to do.

`DAMAGED_RUNS=1500 pytest tests/tools/train/test_damaged_runs.py` tries more cases than every day.
"""

import json
import os

import numpy as np
import pytest
from safetensors.torch import load_file
from toy_damage import copied, damage
from toy_files import content
from toy_runs import AUTOENCODER, changed, train

from lvdm_engines.errors import LvdmError
from lvdm_tools.train import sheets

CURVES = sheets.curves
CASES = int(os.environ.get("DAMAGED_RUNS", "16"))
READ = {  # what a resume reads
    "autoencoder": ("config.json", "state.safetensors", "log.jsonl", "model/model.json"),
    "denoiser": (
        "config.json",
        "state.safetensors",
        "log.jsonl",
        "model/model.json",
        "latents/part-00000.safetensors",
        "first/model/model.json",
        "first/model/model.safetensors",
    ),
}


@pytest.fixture(scope="module")
def finished(autoencoder, denoiser, tiny_denoiser, tmp_path_factory):
    """Return by kind: a finished run whose autoencoder lies in its folder, and its settings."""
    runs = tmp_path_factory.mktemp("finished")
    copied(denoiser, runs / "denoiser")
    copied(autoencoder, runs / "denoiser" / "first")
    return {
        "autoencoder": (copied(autoencoder, runs / "autoencoder"), AUTOENCODER),
        "denoiser": (runs / "denoiser", tiny_denoiser),
    }


def assert_whole(path):
    """Fail for a file that was cut short while it was written."""
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(CASES))
def test_a_damaged_run_resumes_or_names_the_file_and_what_to_do(
    case, finished, tmp_path, monkeypatch
):
    rng = np.random.default_rng([7, case])
    kind = ("autoencoder", "denoiser")[case % 2]
    whole, settings = finished[kind]
    run = copied(whole, tmp_path / "run")
    name = READ[kind][int(rng.integers(len(READ[kind])))]
    way = damage(run / name, rng)
    if name == "log.jsonl":
        monkeypatch.setattr(sheets, "curves", CURVES)  # which reads it
    before = content(run)
    if kind == "denoiser":
        settings = changed(settings, {"autoencoder": str(run / "first")})
    steps = settings["steps"] + int(rng.integers(2))  # with a step to take, or none
    try:
        train(changed(settings, {"steps": steps}), run, resume=True)
    except LvdmError as err:
        told = str(err)
        assert str(run) in told, (name, way, told)
        assert any(mark in told for mark in (": ", "; ")), (name, way, told)
        after = content(run)
        assert before.keys() == after.keys(), (name, way, told)
        for path in before:
            if before[path] != after[path]:
                assert_whole(run / path)
