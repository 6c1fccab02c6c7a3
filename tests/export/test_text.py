"""Text-to-video models: a denoiser that reads a context, its text encoder and its tokenizer."""

from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer
from toy_checkpoints import quiet
from toy_t2v import (
    CONFIG,
    VOCABULARY,
    encoder,
    official_text_state,
    write_masked_model,
    write_tokenizer_json,
)

from lvdm_engines.manifest import ContextFacts
from lvdm_engines.opening import open_session
from lvdm_export.build import build
from lvdm_export.inputs import BuildOptions, Source
from lvdm_export.inspection import describe
from lvdm_export.verify.parity import verify_bundle

PROMPTS = ("Red  sky", "")


def context_of(bundle):
    """Encode `PROMPTS` as a runtime does."""
    tokenizer = Tokenizer.from_file(str(bundle.tokenizer()))
    tokens = np.array([tokenizer.encode(prompt).ids for prompt in PROMPTS])
    with open_session(bundle, "text_encoder", "cpu") as session:
        return tokens, session.run({"tokens": tokens})["context"]


@pytest.mark.exhaustive
def test_a_text_model_becomes_short_clips_that_read_prompts(tmp_path):
    config, checkpoint, text = tmp_path / "t2v.yaml", tmp_path / "t2v.ckpt", encoder()
    config.write_text(yaml.safe_dump(CONFIG))
    torch.save({"state_dict": official_text_state(text)}, checkpoint)
    options = BuildOptions(
        denoisers={"short": Source(config, checkpoint)},
        tokenizer=write_tokenizer_json(tmp_path / "clip.json"),
        out=tmp_path / "b",
    )
    made = build(options, quiet)
    model: Any = made.manifest.model
    assert model.context == ContextFacts(77, 64)
    assert (model.frames_per_latent, model.decode_window) == (1, 1)
    defaults = made.manifest.defaults
    assert (defaults.guidance, defaults.text_guidance, defaults.fps) == (0.0, 14.0, 8.0)
    assert not made.manifest.provenance.ema  # the config says that there are no averages
    assert made.manifest.tokenizer.vocabulary == VOCABULARY
    assert "text_encoder" in verify_bundle(made, quiet)
    assert f"prompts of 77 tokens, of {VOCABULARY} known" in describe(str(made.path))
    tokens, context = context_of(made)
    with torch.no_grad():
        expected = text(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(context, expected, atol=1e-5)
    feeds = {
        "latents": np.zeros((2, 2, 3, 4, 4), np.float32),
        "timestep": np.array([1, 1]),
        "context": context,
    }
    with open_session(made, "short", "cpu") as session:
        eps = session.run(feeds)["eps"]
    assert eps.shape == (2, 2, 3, 4, 4)
    assert not np.allclose(eps[0], eps[1])


@pytest.mark.exhaustive
def test_networks_with_masks_and_text_take_the_encoder_that_they_were_trained_with(tmp_path):
    text = encoder(heads=4, activation="gelu")
    source = Source(*write_masked_model(tmp_path / "model", text))
    options = BuildOptions(
        denoisers={"predict": source, "interpolate": source},
        autoencoder=tmp_path / "model/autoencoder/model.safetensors",
        out=tmp_path / "b",
    )
    made = build(options, quiet)
    assert {"predict", "interpolate", "text_encoder"} <= verify_bundle(made, quiet).keys()
    assert (made.manifest.defaults.guidance, made.manifest.defaults.text_guidance) == (0.1, 14.0)
    tokens, context = context_of(made)
    with torch.no_grad():
        expected = text(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(context, expected, atol=1e-5)
    names = [spec.name for spec in made.manifest.graphs["predict"].inputs]
    assert names == ["latents", "timestep", "mask", "noise_level", "context"]
