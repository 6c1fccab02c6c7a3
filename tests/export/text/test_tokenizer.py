"""CLIP's tokenizer from a list of merges, and tokenizers of others made to fit a model."""

import gzip
import json

import pytest
from tokenizers import Tokenizer
from toy_t2v import VOCABULARY, write_merges

from lvdm_engines.errors import ConfigError
from lvdm_export.text.tokenizer import END, START, clip_tokenizer, fitted_tokenizer


@pytest.fixture
def merges(tmp_path):
    return write_merges(tmp_path / "merges.txt")


@pytest.fixture
def tokenizer(merges):
    return Tokenizer.from_str(clip_tokenizer(merges, 12).decode())


def words(tokenizer, prompt):
    """Return the tokens of a prompt between its start and its first end."""
    tokens = tokenizer.encode(prompt).tokens
    assert tokens[0] == START
    return tokens[1 : tokens.index(END)]


def test_tokens_are_numbered_as_clip_numbers_them(tokenizer):
    assert tokenizer.get_vocab_size() == VOCABULARY
    names = ["!", "~", "¡", "ÿ", "Ā", "!</w>", "sk", "sky</w>", START, END]
    numbers = [0, 93, 94, 187, 188, 256, 512, 513, VOCABULARY - 2, VOCABULARY - 1]
    assert [tokenizer.token_to_id(name) for name in names] == numbers


def test_a_prompt_has_start_and_end_and_is_padded_with_the_end(tokenizer):
    start, end = VOCABULARY - 2, VOCABULARY - 1
    assert tokenizer.encode("sky").ids == [start, 513, *[end] * 10]
    assert tokenizer.encode("").ids == [start, *[end] * 11]


def test_a_long_prompt_is_cut_before_its_end_token_and_shows_what_is_lost(tokenizer):
    encoding = tokenizer.encode("sky " * 11)
    assert encoding.ids == [VOCABULARY - 2, *[513] * 10, VOCABULARY - 1]
    assert encoding.overflowing
    assert not tokenizer.encode("sky " * 10).overflowing


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("SKY", ["sky</w>"]),
        ("  sky\t\n sky\u00a0\u2028sky ", ["sky</w>"] * 3),
        ("skysky", ["sk", "y", "sky</w>"]),
        ("blue red", ["blue</w>", "red</w>"]),
        ("bl'd", ["b", "l</w>", "'", "d</w>"]),
        ("sky's", ["sky</w>", "'", "s</w>"]),
        ("sky\u2019s \u201cred\u201d", ["sky</w>", "'", "s</w>", '"</w>', "red</w>", '"</w>']),
        ("s\x00k\x1by\x7f", ["sky</w>"]),
        ("42", ["4</w>", "2</w>"]),
        ("red!?", ["red</w>", "!", "?</w>"]),
        ("e\u0301", ["Ã", "©</w>"]),
        ("\u039f\u03a3 \u03a3\u039f", ["Î", "¿", "Ï", "Ĥ</w>", "Ï", "ĥ", "Î", "¿</w>"]),
        ("\U0001f600", ["ð", "Ł", "ĺ", "Ģ</w>"]),
        ("\u2026", ["â", "Ģ", "¦</w>"]),
        ("", []),
        (" \n", []),
    ],
)
def test_a_prompt_is_cleaned_and_split_as_clip_does(tokenizer, prompt, expected):
    assert words(tokenizer, prompt) == expected


def test_a_list_of_merges_may_be_compressed(merges, tmp_path):
    packed = tmp_path / "merges.txt.gz"
    packed.write_bytes(gzip.compress(merges.read_bytes()))
    assert clip_tokenizer(packed, 12) == clip_tokenizer(merges, 12)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "holds no merges"),
        (b"#version: 0.2\n", "holds no merges"),
        (b"#version\ns k\nsky\n", r"line 3 is 'sky', expected two tokens with a space"),
        (b"#version\ns k y\n", r"line 2 is 's k y', expected two tokens"),
        (b"#version\nsk y</w>\n", r"line 2 merges 'sk' and 'y</w>', expected two tokens of the"),
        (b"#version\ns k\ns k\n", r"line 3 merges 's' and 'k', expected .* and a new one"),
        (b"#version\n\xff k\n", "is damaged"),
        (gzip.compress(b"#version\ns k\n")[:-9], "is damaged"),
        (b"\x1f\x8bnonsense", "is damaged"),
    ],
)
def test_what_is_no_list_of_merges_is_refused(tmp_path, data, told):
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=told):
        clip_tokenizer(path, 77)


def test_a_tokenizer_that_its_library_panics_over_is_refused(merges, tmp_path, capfd):
    described = json.loads(clip_tokenizer(merges, 77))
    del described["post_processor"]["special_tokens"][END]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(described))
    with pytest.raises(ConfigError, match=r"is no tokenizer\.json"):
        fitted_tokenizer(path, 77, VOCABULARY)


def test_a_missing_list_of_merges_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none\.gz: No such file"):
        clip_tokenizer(tmp_path / "none.gz", 77)


def test_another_tokenizer_is_cut_and_padded_to_the_model(merges, tmp_path):
    """Those of CLIP at Hugging Face have neither padding nor a length."""
    plain = Tokenizer.from_str(clip_tokenizer(merges, 77).decode())
    plain.no_padding()
    plain.no_truncation()
    plain.save(str(tmp_path / "tokenizer.json"))
    fitted = fitted_tokenizer(tmp_path / "tokenizer.json", 5, VOCABULARY)
    start, end = VOCABULARY - 2, VOCABULARY - 1
    made = Tokenizer.from_str(fitted.decode())
    assert made.encode("sky").ids == [start, 513, end, end, end]
    assert made.encode("sky " * 9).ids == [start, 513, 513, 513, end]


def test_the_padding_of_a_tokenizer_is_kept(merges, tmp_path):
    other = Tokenizer.from_str(clip_tokenizer(merges, 77).decode())
    other.enable_padding(pad_id=0, pad_token="!", length=30)  # noqa: S106 - no password
    other.save(str(tmp_path / "tokenizer.json"))
    fitted = fitted_tokenizer(tmp_path / "tokenizer.json", 5, VOCABULARY)
    ids = Tokenizer.from_str(fitted.decode()).encode("sky").ids
    assert ids == [VOCABULARY - 2, 513, VOCABULARY - 1, 0, 0]


@pytest.mark.parametrize(
    ("tokens", "vocabulary", "told"),
    [
        (77, 49408, f"knows {VOCABULARY} tokens, but the text encoder 49408; take the tokenizer"),
        (2, VOCABULARY, "2 tokens leave no room for a word between start and end"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(merges, tmp_path, tokens, vocabulary, told):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(clip_tokenizer(merges, 77))
    with pytest.raises(ConfigError, match=told):
        fitted_tokenizer(path, tokens, vocabulary)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\xff", b"[1]", json.dumps({"model": {"type": "BPE"}}).encode()]
)
def test_what_is_no_tokenizer_is_refused_in_one_line(tmp_path, data):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"is no tokenizer\.json .*; make one with lvdm-export"):
        fitted_tokenizer(path, 77, 49408)
