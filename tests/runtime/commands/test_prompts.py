"""Prompts on the command line: what they do, how they are told, and what is refused."""

import json
import sys
from base64 import b64encode
from unittest.mock import Mock

import numpy as np
import pytest
from toy_files import edited, names

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")
from toy_text import TABLE, WORDS, tokenizer_json


@pytest.fixture
def tell(generate, told, frames_of):
    """Generate 40 frames and return them."""

    def tell(out, *flags, bundle=told):
        generate(out, "--frames", "40", *flags, bundle=bundle)
        return frames_of(out)

    return tell


def test_a_prompt_changes_what_comes_and_not_the_noise(tell):
    red, blue = tell("red.npz", "--prompt", "red"), tell("blue.npz", "--prompt", "blue")
    again = tell("again.npz", "--prompt", "red")
    assert np.array_equal(red, again)
    assert not np.array_equal(red, blue)
    off = ("--text-guidance", "0", "--guidance", "0")
    plain = [tell(f"{n}.npz", "--prompt", text, *off) for n, text in enumerate(["green", "blue"])]
    # the toy adds the text to what it predicts: the same noise gives the same picture, shifted
    shift = plain[0][:16].astype(int) - plain[1][:16]
    inside = (plain[0][:16] % 255 > 0) & (plain[1][:16] % 255 > 0)  # not clipped
    assert inside.any()
    assert np.ptp(shift[inside]) <= 4


def test_a_prompt_moves_pictures_further_with_more_text_guidance(tell):
    mean = [
        tell(f"{weight}.npz", "--prompt", "blue blue blue", "--text-guidance", weight).mean()
        for weight in ("0", "1", "2")
    ]
    assert sorted(mean) in (mean, mean[::-1])
    assert len(set(mean)) == 3


def test_what_a_negative_prompt_says_is_guided_away_from(tell):
    plain = tell("a.npz", "--prompt", "green")
    away = tell("b.npz", "--prompt", "green", "--negative-prompt", "blue")
    same = tell("c.npz", "--prompt", "green", "--negative-prompt", "green")
    unguided = tell("d.npz", "--prompt", "green", "--text-guidance", "0")
    assert not np.array_equal(plain, away)
    assert np.array_equal(same, unguided)


def test_a_repeat_with_another_tokenizer_is_refused(tell, command, told, make_told):
    tell("a.npz", "--prompt", "red")
    other = tokenizer_json().replace(b"Lowercase", b"NFC")
    words = ("generate", "--from", "a.npz.json", "-o", "b.npz", "--bundle")
    code, _, err = command(*words, make_told(tokenizer=other))
    assert (code, "the bundle is not the one that the video was made with" in err) == (1, True)


@pytest.mark.parametrize(
    "flags",
    [
        ("--prompt", "red", "--negative-prompt", "sky"),
        ("--prompt", "red", "--prompt", "20: blue sky", "--guidance-interval", "3:60"),
    ],
)
def test_a_video_with_prompts_is_repeated_from_its_sidecar(
    tell, command, told, frames_of, settings_of, flags
):
    first = tell("a.npz", *flags)
    assert settings_of("a.npz")["prompts"][0] == [0, "red"]
    words = ("generate", "--from", "a.npz.json", "--bundle", told)
    assert command(*words, "-o", "b.npz")[0] == 0
    assert np.array_equal(first, frames_of("b.npz"))
    assert command(*words, "-o", "c.npz", "--prompt", "green")[0] == 0
    assert settings_of("c.npz")["prompts"] == [[0, "green"]]
    assert not np.array_equal(first, frames_of("c.npz"))


def test_a_sidecar_of_a_model_without_text_tells_of_none(generate, settings_of):
    generate("a.npz")
    told = settings_of("a.npz")
    assert [name for name in told if "prompt" in name or "text" in name or "interval" in name] == []


def test_an_interrupted_run_goes_on_with_the_same_prompt_only(
    stopped, generate, told, frames_of, tmp_path
):
    flags = ("--frames", "40", "--prompt", "red", "--prompt", "16: blue")
    generate("whole.npz", *flags, bundle=told)
    stopped("a.npz", *flags, bundle=told)
    assert ".a.npz.work" in names(tmp_path)
    other = ("--frames", "40", "--prompt", "red", "--prompt", "17: blue")
    err = generate("a.npz", *other, "--resume", bundle=told, code=1)
    assert "holds an interrupted run with prompts" in err
    generate("a.npz", *flags, "--resume", bundle=told)
    assert np.array_equal(frames_of("a.npz"), frames_of("whole.npz"))
    generate("a.npz", *flags, "--resume", bundle=told)  # finds that it is whole


def test_one_prompt_is_text_whatever_it_begins_with(generate, told, settings_of):
    generate("a.npz", "--prompt", "2001: a red sky", bundle=told)
    assert settings_of("a.npz")["prompts"] == [[0, "2001: a red sky"]]
    generate("b.npz", "--prompt", "0: red", "--prompt", " 8 :blue\nsky", bundle=told)
    assert settings_of("b.npz")["prompts"] == [[0, "red"], [8, "blue\nsky"]]


def test_short_videos_are_guided_by_text_and_not_by_frames(make_told, generate, frames_of):
    bundle = make_told(short=True)
    generate("a.npz", "--prompt", "red", bundle=bundle)
    generate("b.npz", "--prompt", "red", "--text-guidance", "9", bundle=bundle)
    assert not np.array_equal(frames_of("a.npz"), frames_of("b.npz"))
    err = generate("c.npz", "--prompt", "red", "--guidance", "9", bundle=bundle, code=1)
    assert "got guidance 9.0 in mode short" in err
    assert "use text_guidance" in err


def test_a_bundle_from_before_text_guidance_was_told_apart_is_guided_as_it_says(
    make_told, generate, settings_of
):
    bundle = make_told(guidance=14.0, text_guidance=None)
    generate("a.npz", "--prompt", "red", bundle=bundle)
    settings = settings_of("a.npz")
    assert (settings["guidance"], settings["text_guidance"]) == (0, 14)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "got no prompt, but told is told what to show; give one, or '' for none"),
        (["--prompt", "a" * 10_001], "got prompt of 10001 characters, expected at most 10000"),
        (["--prompt", "red\x1b[31m"], "with the control character U+001B"),
        (["--prompt", "red \udcff"], "is not UTF-8"),
        (["--prompt", "a", "--negative-prompt", "\x07"], "got negative_prompt '\\x07' with the"),
        (["--prompt", "a", "--prompt", "9: b", "--prompt", "9: c"], "expected 0 first and then"),
        (["--prompt", "a", "--prompt", "99999999: b"], "got the frame of a prompt 99999999"),
        (["--prompt", "a", "--guidance-interval", "0:100"], "expected a whole number from 0 to 99"),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_one_line(
    command, told, tmp_path, monkeypatch, flags, message
):
    monkeypatch.setattr("lvdm_rt.pipeline.open_sessions", Mock(side_effect=AssertionError))
    code, out, err = command("generate", "-o", "a.npz", "--bundle", told, *flags)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert message in err
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", "red", "--prompt", "blue"], "'blue' says no frame; after the first prompt"),
        (["--prompt", "10: red", "--prompt", "16: blue"], "the first prompt and begins at frame 0"),
        (["--guidance-interval", "100"], "expected LOW:HIGH, as in 100:800"),
    ],
)
def test_prompts_and_intervals_of_another_form_are_usage_errors(command, told, flags, message):
    code, out, err = command("generate", "-o", "a.npz", "--bundle", told, *flags)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    "flags", [("--prompt", "red"), ("--negative-prompt", "red"), ("--text-guidance", "1")]
)
def test_text_for_a_bundle_that_reads_none_is_refused(generate, tmp_path, flags):
    err = generate("a.npz", *flags, code=1)
    assert "but toy was not trained with text; leave it out" in err
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", None),  # as the message says that asks for a prompt
        (" \n ", "a prompt is empty: it asks for nothing in particular"),
        (
            "red green blue sky red",
            "of a prompt 5 tokens are read, and it has more: from 'sky red'",
        ),
        ("☀️🌧️ red", None),
        ("x" * 10_000, None),
    ],
)
def test_what_surprises_in_a_prompt_is_said_once(tell, caplog, text, said):
    tell("a.npz", "--prompt", text)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == (said is not None)
    assert (said or "") in "".join(warnings)


def test_prompts_that_were_typed_as_utf8_are_read_in_a_locale_of_ascii(tell, settings_of):
    typed = "é".encode().decode("ascii", "surrogateescape")  # as Python has it there
    tell("a.npz", "--prompt", f"{typed} red", "--negative-prompt", f"{typed} blue")
    told = settings_of("a.npz")
    assert (told["prompts"], told["negative_prompt"]) == ([[0, "é red"]], "é blue")


def test_an_empty_prompt_is_what_comes_without_guidance(tell):
    empty = tell("a.npz", "--prompt", "")
    assert np.array_equal(empty, tell("b.npz", "--prompt", "", "--text-guidance", "0"))


def test_prompts_that_no_clip_is_told_are_named(tell, caplog):
    tell("a.npz", "--prompt", "red", "--prompt", "500: blue")
    assert "the prompt from frame 500 on is never used" in caplog.text


# at which the library does not raise an error but panics
PRECOMPILED = b'"type": "Precompiled", "precompiled_charsmap": "%s"' % b64encode(
    b"\x08\0\0\0" + b"\xff" * 40
)
UNPADDED = json.dumps(json.loads(tokenizer_json()) | {"padding": None}).encode()


def changed(old: bytes, new: bytes) -> dict[str, bytes]:
    """A tokenizer with something replaced."""
    assert old in tokenizer_json()
    return {"tokenizer": tokenizer_json().replace(old, new)}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"vocabulary": 7}, "knows 6 tokens, but the text encoder 7"),
        ({"vocabulary": 5}, "knows 6 tokens, but the text encoder 5; they belong to different"),
        ({"tokenizer": b"{}"}, "is no tokenizer"),
        ({"table": TABLE * np.float32("nan")}, "the text encoder returned NaN or infinity for"),
        (changed(b'"Fixed": 5', b'"Fixed": 4'), "is no tokenizer (its padding does not fit 5"),
        (changed(b'"Fixed": 5', b'"Fixed": 9876543210123'), "(its padding does not fit 5 tokens"),
        (
            changed(b'"pad_to_multiple_of": null', b'"pad_to_multiple_of": 99'),
            "its pad_to_multiple_of",
        ),
        (
            changed(b'"max_length": 5', b'"max_length": 3'),
            "(its truncation does not fit 5 tokens",
        ),
        (changed(b'"stride": 0', b'"stride": 5'), "(its stride does not fit 5 tokens"),
        (
            changed(b'"id": "<end>", "type_id"', b'"id": "<e>", "type_id"'),
            "has a token that is not",
        ),
        ({"tokenizer": UNPADDED}, "told: the tokenizer gives 2 tokens, expected 5"),
        ({"table": np.zeros((len(WORDS), 4), np.float32)}, "output context: got float32 (?, 5, 4)"),
    ],
)
def test_a_bundle_whose_text_cannot_be_right_is_one_line(
    make_told, generate, tmp_path, how, message
):
    err = generate("a.npz", "--prompt", "red", bundle=make_told(**how), code=1)
    assert message in err
    assert len(err.splitlines()) == 1
    assert names(tmp_path) == []


def test_a_tokenizer_at_which_the_library_panics_is_an_error_like_others(make_told, generate):
    told = make_told(**changed(b'"type": "Lowercase"', PRECOMPILED))
    line = generate("a.npz", "--prompt", "red", bundle=told, code=1).splitlines()[-1]  # of its own
    assert "tokenizer.json: is no tokenizer (Precompiled: Error(" in line  # come before it


def test_a_missing_package_is_named_before_a_graph_is_opened(generate, told, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.setattr("lvdm_rt.pipeline.open_sessions", None)
    err = generate("a.npz", "--prompt", "red", bundle=told, code=1)
    assert "told reads text, but tokenizers is not installed; pip install 'lvdm-rt[text]'" in err


def test_the_weights_of_text_and_frames_are_shown(command, told):
    _, out, _ = command("info", told)
    assert "text guidance 2, guidance 0.1" in " ".join(out.split())


def test_every_prompt_of_a_sidecar_is_checked(tell, command, told, tmp_path):
    tell("a.npz", "--prompt", "red")
    for wrong in ([[0, "a\x00"]], [[3, "a"]], "red", [["a"]]):
        with edited(tmp_path / "a.npz.json") as settings:
            settings["prompts"] = wrong
        words = ("generate", "--from", "a.npz.json", "--bundle", told, "-o", "b.npz")
        code, _, err = command(*words)
        assert (code, len(err.splitlines())) == (1, 1), json.dumps(wrong)
