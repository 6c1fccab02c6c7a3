"""A whole export of what the field has: shards, wrapped keys, v, a schedule without signal."""

import json
import re

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from lvdm_engines.opening import open_session
from lvdm_export.build import build
from lvdm_export.checkpoint.noise_table import alpha_bar
from lvdm_export.inputs import BuildOptions, Source
from lvdm_export.verify.parity import verify_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(official, tmp_path_factory):
    """Write the toy model as shards; its denoiser now counts as one that gives v."""
    folder = tmp_path_factory.mktemp("shards")
    raw = yaml.safe_load(official.config.read_text())
    params = raw["model"]["params"]
    params |= {"parameterization": "v", "rescale_betas_zero_snr": True, "scale_factor": 0.25}
    params |= {"scale_by_std": True, "channels": "${model.params.unet_config.params.out_channels}"}
    (folder / "model.yaml").write_text(yaml.safe_dump(raw))
    state = torch.load(official.checkpoint, weights_only=False)["state_dict"]
    state |= {"scale_factor": torch.tensor(0.5)}
    del state["betas"]  # of the schedule before it was rescaled
    state = {f"module.{key}": tensor.clone() for key, tensor in state.items()}
    keys, index = list(state), {}
    for number, part in enumerate((keys[::2], keys[1::2])):
        save_file({key: state[key] for key in part}, folder / f"model-{number}.safetensors")
        index |= dict.fromkeys(part, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def test_shards_of_a_network_that_gives_v_become_a_bundle_that_gives_noise(
    official, shards, tmp_path
):
    lines = []
    source = Source(shards / "model.yaml", shards)
    options = BuildOptions(denoisers={"predict": source}, out=tmp_path / "b", decode_window=2)
    bundle = build(options, lines.append)
    model = bundle.manifest.model
    assert model.schedule.zero_snr
    assert model.latent.scale == 0.5
    assert bundle.manifest.provenance.ema
    assert "is read as" in lines[0]
    assert "sha256" in lines[-1]
    assert [line.split()[0] for line in lines[1:-1]] == [f"{n}/14" for n in range(1, 15)]
    assert re.search(
        r"preview: colours fitted to latents, R² -?\d\.\d\d, off by \d+ of 255", lines[-3]
    )
    assert len(bundle.manifest.preview.weights) == model.latent.channels
    rng = np.random.default_rng(0)
    feeds = {
        "latents": rng.standard_normal((2, 2, 5, 4, 4)).astype(np.float32),
        "timestep": np.array([500, 999]),
        "mask": np.zeros((2, 5), np.float32),
        "noise_level": np.array([-1, 3]),
    }
    with torch.no_grad():
        v = official.ema(*(torch.from_numpy(array) for array in feeds.values())).numpy()
    a = alpha_bar(model.schedule).numpy()[feeds["timestep"]][:, None, None, None, None]
    with open_session(bundle, "predict", "cpu") as session:
        eps = session.run(feeds)["eps"]
    assert np.abs(eps - (a**0.5 * v + (1 - a) ** 0.5 * feeds["latents"])).max() < 1e-4
    assert set(verify_bundle(bundle, lambda _: None)) == set(bundle.manifest.graphs)
