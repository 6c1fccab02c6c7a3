"""Our text encoder against the one of the library that the authors use, on random weights."""

import dataclasses

import pytest
import torch
from toy_t2v import ENCODER, encoder

from lvdm_export.nets.layers import to_half
from lvdm_export.nets.text import TextEncoderConfig


@pytest.fixture
def tokens():
    return torch.randint(ENCODER.vocabulary, (3, 77), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_text_encoder_gives_what_hugging_faces_clip_gives(activation, tokens):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    ours = encoder(heads=4, activation=activation)
    config = transformers.CLIPTextConfig(
        vocab_size=ENCODER.vocabulary,
        hidden_size=ENCODER.width,
        intermediate_size=ENCODER.inner,
        num_hidden_layers=ENCODER.layers,
        num_attention_heads=4,
        hidden_act=activation,
        bos_token_id=ENCODER.vocabulary - 2,
        eos_token_id=ENCODER.vocabulary - 1,
    )
    theirs = transformers.CLIPTextModel(config).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        expected = theirs(input_ids=tokens).last_hidden_state
        torch.testing.assert_close(ours(tokens), expected, atol=2e-6, rtol=0)


def test_a_token_is_not_read_by_those_before_it(tokens):
    text = encoder(heads=4)
    changed = tokens.clone()
    changed[:, 40:] = 7
    with torch.no_grad():
        before, after = text(tokens), text(changed)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


def test_a_text_encoder_in_half_precision_is_near_and_answers_in_float32(tokens):
    with torch.no_grad():
        expected = encoder(heads=4)(tokens)
        got = to_half(encoder(heads=4))(tokens)
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() < 1e-2 * expected.abs().max()


def test_the_default_is_the_encoder_that_the_authors_use():
    assert dataclasses.astuple(TextEncoderConfig()) == (
        12, 768, 12, 3072, 49408, 77, "quick_gelu",
    )  # fmt: skip
    with pytest.raises(ValueError, match="width 768 is not a multiple of heads 7"):
        TextEncoderConfig(heads=7)
