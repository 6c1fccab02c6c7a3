"""Denoisers that learn to read captions: what a run leaves, resumes, freezes and refuses."""

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from toy_films import write_video
from toy_runs import changed, different, interrupted, model_of, state_of, train

from lvdm_engines.errors import ConfigError, TrainingError
from lvdm_export.checkpoint.keys import TEXT_ENCODER
from lvdm_export.config.model_json import read_record
from lvdm_tools.train.config import TextTraining
from lvdm_tools.train.diffusion.text import make_prompts

pytestmark = pytest.mark.slow  # most of them train

TEXT = {
    "network.context_dim": 16,
    "network.use_temporal_transformer": True,
    "text": {"tokens": 12, "vocabulary": 300, "layers": 1, "heads": 2, "dropped": 0.3},
}


@pytest.fixture(scope="module")
def settings(tiny_denoiser):
    return changed(tiny_denoiser, TEXT)


@pytest.fixture(scope="module")
def prompted(tmp_path_factory, settings):
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("text") / "prompted"
    train(settings, out)
    return out


def encoder_of(run):
    return {k: v for k, v in model_of(run).items() if k.startswith(TEXT_ENCODER)}


def test_a_model_that_reads_text_is_written_with_its_encoder_and_tokenizer(prompted):
    record = read_record(prompted / "model" / "model.json")
    tokenizer = Tokenizer.from_file(str(prompted / "model" / "tokenizer.json"))
    assert record.context_tokens == len(tokenizer.encode("Clouds at noon").ids) == 12
    assert record.text_encoder.vocabulary == tokenizer.get_vocab_size() == 300
    assert f"{TEXT_ENCODER}embeddings.token_embedding.weight" in encoder_of(prompted)


def test_prompts_are_read_in_any_case_and_spacing_and_cut(prompted):
    tokenizer = Tokenizer.from_file(str(prompted / "tokenizer.json"))
    nothing, *same, long = tokenizer.encode_batch(
        ["", "thick clouds", "  Thick \n CLOUDS", "hills " * 100]
    )
    assert same[0].ids == same[1].ids != nothing.ids
    assert tokenizer.decode(same[0].ids).strip() == "thick clouds"
    assert len(long.ids) == 12
    assert long.ids[-1] == nothing.ids[1] == nothing.ids[-1]  # the end token


def test_the_encoder_is_trained_with_the_denoiser(prompted, settings, tmp_path):
    train(changed(settings, {"steps": 1, "ema": None}), tmp_path / "young")
    assert different(encoder_of(prompted), encoder_of(tmp_path / "young"))


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_weights(prompted, settings, tmp_path):
    assert interrupted(settings, tmp_path / "run", at=3) < settings["steps"]
    train(settings, tmp_path / "run", resume=True)
    assert not different(model_of(prompted), model_of(tmp_path / "run"))
    assert not different(state_of(prompted), state_of(tmp_path / "run"))


def test_a_frozen_encoder_stays_as_it_was_and_out_of_the_checkpoint(prompted, settings, tmp_path):
    frozen = changed(settings, {"text.frozen": str(prompted)})
    train(frozen, tmp_path / "run")
    assert not different(encoder_of(prompted), encoder_of(tmp_path / "run"))
    assert not [name for name in state_of(tmp_path / "run") if "text_encoder" in name]
    same = (prompted / "tokenizer.json").read_bytes()
    assert (tmp_path / "run" / "model" / "tokenizer.json").read_bytes() == same


def test_a_new_run_can_start_from_a_model_with_its_words(prompted, settings, tmp_path):
    train(changed(settings, {"start_from": str(prompted), "seed": 5}), tmp_path / "run")
    same = (prompted / "tokenizer.json").read_bytes()
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == same
    header = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert header.keys() == model_of(prompted).keys()


def test_a_run_stopped_before_its_first_checkpoint_starts_again_from_the_same_encoder(
    prompted, settings, tmp_path
):
    young = changed(settings, {"start_from": str(prompted), "steps": 1, "ema": None})
    train(young, tmp_path / "run")
    before = encoder_of(tmp_path / "run")
    (tmp_path / "run" / "state.safetensors").unlink()
    shutil.rmtree(tmp_path / "run" / "model")
    train(young, tmp_path / "run", resume=True)
    assert not different(encoder_of(tmp_path / "run"), before)


def test_another_encoder_in_the_place_of_a_frozen_one_ends_a_run(prompted, settings, tmp_path):
    shutil.copytree(prompted, tmp_path / "frozen")
    run = changed(settings, {"text.frozen": str(tmp_path / "frozen"), "steps": 1})
    train(run, tmp_path / "run")
    weights = tmp_path / "frozen" / "model" / "model.safetensors"
    save_file({k: v + 1 for k, v in load_file(weights).items()}, weights)
    with pytest.raises(TrainingError, match="frozen_sha256"):
        train(changed(run, {"steps": 2}), tmp_path / "run", resume=True)


def test_a_share_of_clips_is_learnt_without_its_caption(settings, monkeypatch, tmp_path):
    from lvdm_tools.train.diffusion.task import DiffusionTask

    seen = []
    batch = DiffusionTask.batch

    def watched(self, step):
        made = batch(self, step)
        seen.extend((self.tokens[0] == row).all() for row in made["tokens"].numpy())
        return made

    monkeypatch.setattr(DiffusionTask, "batch", watched)
    train(changed(settings, {"steps": 40, "batch": 4, "every.checkpoint": 100}), tmp_path / "run")
    assert 0.15 < np.mean(seen) < 0.45


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"text": None}, "network.context_dim and text belong together"),
        ({"network.context_dim": None, "network.use_temporal_transformer": False},
         "network.context_dim and text belong together"),
        ({"text.heads": 3}, "width 16 is not a multiple of heads 3"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(settings, tmp_path, fields, told):
    with pytest.raises(ConfigError, match=told):
        train(changed(settings, fields), tmp_path / "run")


def test_an_encoder_of_other_sizes_to_start_from_is_refused(prompted, settings, tmp_path):
    other = changed(settings, {"start_from": str(prompted), "text.layers": 2})
    with pytest.raises(ConfigError, match="start_from holds a text encoder of other sizes"):
        train(other, tmp_path / "run")


def test_a_model_without_an_encoder_cannot_be_frozen(autoencoder, settings, tmp_path):
    with pytest.raises(ConfigError, match="holds no text encoder"):
        train(changed(settings, {"text.frozen": str(autoencoder)}), tmp_path / "run")


def test_videos_without_captions_are_refused(settings, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "videos" / name, list(range(20, 60)))
    with pytest.raises(ConfigError, match=r"no video has a caption: put captions\.jsonl beside"):
        train(settings, tmp_path / "run", data=str(tmp_path / "videos"))


def test_a_frozen_encoder_of_another_width_is_refused(prompted, tmp_path):
    with pytest.raises(ConfigError, match=r"width 16, but network\.context_dim is 24"):
        make_prompts(TextTraining(frozen=prompted), 24, ["clouds"], tmp_path, None)


def test_a_student_reads_text_by_the_encoder_of_its_teacher(settings, prompted, tmp_path):
    student = {"kind": "distill", "calls": 2, "teacher_calls": 2, "start_from": str(prompted)}
    with pytest.raises(ConfigError, match="is None, but a student reads text by"):
        train(changed(settings, student), tmp_path / "run")
    train(changed(settings, {"seed": 5}), tmp_path / "other")
    other = changed(settings, student | {"text.frozen": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match="but a student reads text by its teacher's encoder"):
        train(other, tmp_path / "run")
    train(changed(settings, student | {"text.frozen": str(prompted)}), tmp_path / "run")
    assert not different(encoder_of(tmp_path / "run"), encoder_of(prompted))
