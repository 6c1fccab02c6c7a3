"""Which text encoder and tokenizer a bundle takes, and what is refused before any export."""

import json

import pytest
import torch
import yaml
from toy_checkpoints import quiet
from toy_t2v import (
    CONFIG,
    encoder,
    official_text_state,
    write_clip_folder,
    write_masked_model,
    write_tokenizer_json,
)

from lvdm_engines.errors import CheckpointError, ConfigError
from lvdm_engines.manifest import ContextFacts
from lvdm_export.build import build
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import load_text_encoder
from lvdm_export.config.yaml_config import read_config
from lvdm_export.inputs import BuildOptions, Source
from lvdm_export.text.source import Reader, find_text

CONTEXT = ContextFacts(77, 64)


@pytest.fixture
def official(tmp_path):
    """Write the authors' two files, with a text encoder of this seed or without."""

    def write(text=None, folder="official"):
        place = tmp_path / folder
        place.mkdir()
        (place / "t2v.yaml").write_text(yaml.safe_dump(CONFIG))
        torch.save({"state_dict": official_text_state(text)}, place / "t2v.ckpt")
        return reader(place / "t2v.yaml", place / "t2v.ckpt")

    return write


def reader(config, checkpoint):
    return Reader(config, read_config(config).denoiser, open_checkpoint(checkpoint))


def same_weights(found, expected):
    got = load_text_encoder(found.config, found.checkpoint).state_dict()
    return all(torch.equal(got[name], t) for name, t in expected.state_dict().items())


def test_sizes_of_the_authors_encoder_are_told_by_its_weights(official, tmp_path):
    text = encoder()
    tokenizer = write_tokenizer_json(tmp_path / "clip.json")
    found = find_text([official(text)], CONTEXT, None, tokenizer)
    assert found.config == text.config
    assert same_weights(found, text)


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_a_folder_of_hugging_face_goes_before_what_the_checkpoint_holds(official, tmp_path, prefix):
    text = encoder(seed=9, heads=4, activation="gelu")
    folder = write_clip_folder(tmp_path / "clip", text, prefix=prefix)
    found = find_text([official(encoder())], CONTEXT, folder, None)
    assert found.config == text.config
    assert same_weights(found, text)
    assert json.loads(found.tokenizer)["padding"]["strategy"] == {"Fixed": 77}


def test_a_whole_clip_gives_its_text_half(official, tmp_path):
    folder = write_clip_folder(tmp_path / "clip", encoder(), prefix="text_model.")
    described = json.loads((folder / "config.json").read_text())
    whole = {"model_type": "clip", "text_config": described, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(whole))
    assert find_text([official()], CONTEXT, folder, None).config == encoder().config


def test_a_tokenizer_beside_the_config_is_taken(official):
    source = official(encoder())
    write_tokenizer_json(source.path.with_name("tokenizer.json"))
    assert find_text([source], CONTEXT, None, None).tokenizer


def test_a_checkpoint_without_text_encoder_says_what_to_give(official):
    with pytest.raises(CheckpointError) as caught:
        find_text([official()], CONTEXT, None, None)
    assert "describes a network that reads text, but " in str(caught.value)
    assert str(caught.value).endswith("(config.json, model.safetensors) with --text-encoder")


def test_a_text_encoder_without_tokenizer_says_what_to_give(official):
    with pytest.raises(ConfigError, match=r"no tokenizer\.json lies in .* --tokenizer \(lvdm-exp"):
        find_text([official(encoder())], CONTEXT, None, None)


def test_two_networks_with_different_encoders_make_no_bundle(official):
    first, second = official(encoder(), "a"), official(encoder(seed=6), "b")
    with pytest.raises(CheckpointError, match="hold different text encoders, but a bundle has one"):
        find_text([first, second], CONTEXT, None, None)


def test_one_encoder_serves_networks_that_hold_it_twice_or_not_at_all(official, tmp_path):
    tokenizer = write_tokenizer_json(tmp_path / "clip.json")
    several = [official(folder="a"), official(encoder(), "b"), official(encoder(), "c")]
    assert find_text(several, CONTEXT, None, tokenizer).checkpoint == several[1].checkpoint


def test_a_model_json_says_the_sizes_of_its_encoder(tmp_path):
    text = encoder(heads=4, activation="gelu")
    found = find_text([reader(*write_masked_model(tmp_path / "m", text))], CONTEXT, None, None)
    assert found.config == text.config
    assert same_weights(found, text)


def test_an_encoder_that_the_model_json_does_not_describe_is_refused(tmp_path):
    config, weights = write_masked_model(tmp_path / "m", encoder())
    record = json.loads(config.read_text())
    config.write_text(json.dumps(record | {"text_encoder": None}))
    with pytest.raises(
        ConfigError, match=r"model\.json has no text_encoder, but .* holds one; add"
    ):
        find_text([reader(config, weights)], CONTEXT, None, None)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"model_type": "t5"}, ConfigError, "config.json: model_type is 't5', expected clip or"),
        ({"hidden_act": "relu"}, ConfigError, "hidden_act is 'relu', expected"),
        ({"layer_norm_eps": 1e-6}, ConfigError, "layer_norm_eps is 1e-06, expected"),
        ({"num_attention_heads": 5}, ConfigError, "width 64 is not a multiple of heads 5"),
        ({"num_hidden_layers": 3}, CheckpointError, r"16 missing keys \(encoder\.layers\.2"),
        ({"num_hidden_layers": 1}, CheckpointError, r"16 unexpected keys \(encoder\.layers\.1"),
        ({"intermediate_size": 48}, CheckpointError, "has shape .* but the config expects"),
        ({"vocab_size": 600}, ConfigError, "knows 521 tokens, but the text encoder 600"),
        ({"max_position_embeddings": 76}, CheckpointError, r"expects \[76, 64\]"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(official, tmp_path, changes, error, told):
    folder = write_clip_folder(tmp_path / "clip", encoder())
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | changes))
    source = official()
    options = BuildOptions(
        denoisers={"short": Source(source.path, source.checkpoint.path)},
        text_encoder=folder,
        out=tmp_path / "out",
    )
    with pytest.raises(error, match=told):
        build(options, quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused(official, tmp_path, name):
    folder = write_clip_folder(tmp_path / "clip", encoder())
    (folder / name).unlink()
    with pytest.raises((CheckpointError, ConfigError), match=rf"{name}"):
        find_text([official()], CONTEXT, folder, None)


def test_weights_of_something_else_in_the_folder_are_refused(official, tmp_path):
    folder = write_clip_folder(tmp_path / "clip", encoder(), prefix="vision_model.")
    with pytest.raises(CheckpointError, match="holds no text encoder of CLIP; give the folder"):
        find_text([official()], CONTEXT, folder, None)


def test_an_encoder_of_another_width_than_the_network_reads_is_refused(official, tmp_path):
    source = official(encoder(width=128, heads=2))
    options = BuildOptions(
        denoisers={"short": Source(source.path, source.checkpoint.path)},
        tokenizer=write_tokenizer_json(tmp_path / "clip.json"),
        out=tmp_path / "out",
    )
    with pytest.raises(ConfigError, match=r"text_encoder: it makes \(1, 77, 128\) of tokens"):
        build(options, quiet)


@pytest.mark.parametrize("given", [{"folder": True}, {"tokenizer": True}])
def test_text_options_for_a_model_without_text_are_refused(tmp_path, given):
    folder = tmp_path if "folder" in given else None
    tokenizer = tmp_path / "t.json" if "tokenizer" in given else None
    with pytest.raises(ConfigError, match="no network reads a text context; leave --text-encoder"):
        find_text([], None, folder, tokenizer)
