"""A video repeated from the settings beside it, as it was or changed."""

import json

import numpy as np
import pytest
from toy_films import film

SMALL = ("--frames", "12", "--seed", "7")


def frames_of(path):
    with np.load(path) as archive:
        return archive["frames"]


@pytest.mark.parametrize("extra", [(), ("--sampler", "ddpm"), ("--preset", "fast")])
def test_a_video_is_repeated_from_its_sidecar(command, toy, tmp_path, extra):
    flags = ("generate", "--bundle", toy, *SMALL, "--exact", "--videos", "2", *extra)
    assert command(*flags, "-o", "a.npz")[0] == 0
    again = ("generate", "--from", "a-001.npz.json", "--bundle", toy, "-o", "b.npz")
    assert command(*again)[0] == 0
    assert np.array_equal(frames_of(tmp_path / "a-001.npz"), frames_of(tmp_path / "b.npz"))
    assert command(*again[:-1], "c.npz", "--seed", "8")[0] == 0
    assert not np.array_equal(frames_of(tmp_path / "c.npz"), frames_of(tmp_path / "b.npz"))


def test_a_repeat_with_another_model_or_condition_is_refused(command, toy, make_bundle, tmp_path):
    film(tmp_path / "in.mp4")
    film(tmp_path / "other.mp4", seconds=5)
    flags = ("--bundle", toy, *SMALL, "--condition", "in.mp4")
    assert command("generate", "-o", "a.npz", *flags)[0] == 0
    again = ("generate", "--from", "a.npz.json", "-o", "b.npz", "--bundle")
    code, _, err = command(*again, toy)
    assert (code, "continues 'in.mp4'; give it with --condition" in err) == (2, True)
    code, _, err = command(*again, toy, "--condition", "other.mp4")
    assert (code, "the condition is not the one" in err) == (1, True)
    code, _, err = command(*again, make_bundle(0.5), "--condition", "in.mp4")
    assert (code, "the bundle is not the one" in err) == (1, True)
    assert command(*again, toy, "--condition", "in.mp4")[0] == 0
    assert np.array_equal(frames_of(tmp_path / "a.npz"), frames_of(tmp_path / "b.npz"))


def test_a_repeat_by_another_backend_says_so(command, toy, tmp_path, caplog):
    assert command("generate", "-o", "a.npz", "--bundle", toy, *SMALL)[0] == 0
    again = ("generate", "--from", "a.npz.json", "--bundle", toy, "--force", "-o", "b.npz")
    assert command(*again)[0] == 0
    assert "rounds in other places" not in caplog.text
    told = json.loads((tmp_path / "a.npz.json").read_text())
    (tmp_path / "a.npz.json").write_text(json.dumps({**told, "arithmetic": "abacus bf16"}))
    assert command(*again)[0] == 0
    assert f"made by 'abacus bf16' and is repeated by {told['arithmetic']}" in caplog.text


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"frames": 3}', None])
def test_a_sidecar_that_is_none_is_refused(command, tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    code, _, err = command("generate", "--from", "a.json", "-o", "b.npz")
    assert (code, err.count("\n")) == (1, 1)
    assert "a.json: " in err


@pytest.mark.parametrize("changes", [("--sampler", "ddpm"), ("--preset", "fast")])
def test_another_sampler_brings_its_own_numbers_to_a_repeat(
    command, toy, tmp_path, settings_of, changes
):
    assert command("generate", "-o", "a.npz", "--bundle", toy, *SMALL, "--eta", "0.5")[0] == 0
    again = ("generate", "--from", "a.npz.json", "--bundle", toy, "-o", "b.npz", *changes)
    code, _, err = command(*again)
    assert code == 0, err
    assert settings_of(tmp_path / "b.npz")["sampler"] in ("ddpm", "dpmpp_2m")


def test_the_quality_of_the_file_is_repeated_too(command, toy, tmp_path):
    flags = ("generate", "--bundle", toy)
    assert command(*flags, "-o", "a.webm", *SMALL, "--crf", "50")[0] == 0
    assert command(*flags, "-o", "b.webm", "--from", "a.webm.json")[0] == 0
    assert (tmp_path / "a.webm").read_bytes() == (tmp_path / "b.webm").read_bytes()


@pytest.mark.parametrize(
    "field", [{"bundle": ["x"]}, {"frames": "many"}, {"sampler": None}, {"crf": "x"}]
)
def test_a_sidecar_that_was_edited_is_refused_in_one_line(command, toy, tmp_path, field):
    assert command("generate", "-o", "a.npz", "--bundle", toy, *SMALL)[0] == 0
    settings = json.loads((tmp_path / "a.npz.json").read_text()) | field
    (tmp_path / "e.json").write_text(json.dumps(settings))
    code, _, err = command("generate", "--from", "e.json", "-o", "b.npz")
    assert code in (1, 2)
    assert "Traceback" not in err


@pytest.mark.parametrize("out", ["b.gif", "b.npz", "b"])
def test_a_quality_is_forgotten_where_the_format_has_none(command, toy, settings_of, tmp_path, out):
    flags = ("generate", "--bundle", toy)
    assert command(*flags, "-o", "a.mp4", *SMALL, "--crf", "50")[0] == 0
    again = (*flags, "--from", "a.mp4.json", "-o", out)
    assert command(*again, "--crf", "50")[0] == 2
    assert command(*again)[0] == 0
    assert "crf" not in settings_of(tmp_path / out)


def test_a_quality_that_does_not_exist_is_refused_before_sampling(command, toy, tmp_path):
    flags = ("generate", "--bundle", toy)
    assert command(*flags, "-o", "a.mp4", *SMALL)[0] == 0
    settings = json.loads((tmp_path / "a.mp4.json").read_text()) | {"crf": 99}
    (tmp_path / "e.json").write_text(json.dumps(settings))
    code, _, err = command(*flags, "--from", "e.json", "-o", "b.mp4")
    assert (code, "got crf 99, expected 0 (best) to 63" in err) == (1, True)
    assert not (tmp_path / ".b.mp4.work").exists()


def test_what_was_joined_can_be_repeated_alone_and_the_other_way_round(command, toy, tmp_path):
    film(tmp_path / "in.mp4", seconds=2)
    flags = ("generate", "--bundle", toy, "--condition", "in.mp4")
    assert command(*flags, *SMALL, "-o", "both.npz", "--join", "--exact")[0] == 0
    again = (*flags, "--from", "both.npz.json")
    assert command(*again, "-o", "again.npz")[0] == 0
    code, _, err = command(*again, "-o", "new.npz", "--no-join", "--fps", "5", "--no-exact")
    assert code == 0, err
    assert len(frames_of(tmp_path / "again.npz")) == 2 * 8 + 12
    assert len(frames_of(tmp_path / "new.npz")) == 12
    flags = (*flags, "--from", "new.npz.json", "-o", "joined.npz")
    assert command(*flags, "--join")[0] == 0  # at the model's rate, not at that of the sidecar
    assert len(frames_of(tmp_path / "joined.npz")) == 2 * 8 + 12


def test_a_sidecar_from_before_keyframes_were_refined_repeats_without(
    command, toy, tmp_path, settings_of
):
    flags = ("generate", "--bundle", toy)
    assert command(*flags, "-o", "a.npz", *SMALL, "--refine", "0")[0] == 0
    settings = json.loads((tmp_path / "a.npz.json").read_text())
    del settings["refine"]
    (tmp_path / "old.json").write_text(json.dumps(settings))
    assert command(*flags, "-o", "b.npz", "--from", "old.json")[0] == 0
    assert settings_of(tmp_path / "b.npz")["refine"] == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert command(*flags, "-o", "c.npz", "--from", "old.json", "--refine", "2")[0] == 0
    assert settings_of(tmp_path / "c.npz")["refine"] == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("--guidance", "0.5"), ("--mode", "short", "--frames", "8")),
        (("--condition", "in.mp4"), ("--condition", "in.mp4", "--overlap", "0")),
    ],
)
def test_what_a_changed_repeat_cannot_have_is_left_out(command, tmp_path, before, after):
    film(tmp_path / "in.mp4")
    flags = ("generate", "--bundle", "sky-tiny", "--steps", "2")
    assert command(*flags, "-o", "a.npz", *SMALL, *before)[0] == 0
    code, _, err = command(*flags, "-o", "b.npz", "--from", "a.npz.json", *after)
    assert code == 0, err


def test_a_sidecar_that_is_a_link_to_itself_is_no_traceback(command, toy, tmp_path):
    flags = ("generate", "--bundle", toy)
    assert command(*flags, "-o", "s.npz", *SMALL)[0] == 0
    (tmp_path / "v-001.npz.json").symlink_to("v-001.npz.json")
    code, _, err = command(*flags, "--from", "s.npz.json", "--videos", "3", "-o", "v.npz")
    assert (code, "v-001.npz.json, which is no file" in err, err.count("\n")) == (1, True, 1), err


def test_a_sidecar_that_the_run_would_renumber_is_not_repeated_from(command, toy, tmp_path):
    """Or the same command, after an interruption, would make other videos in their place."""
    flags = ("generate", "--bundle", toy, "--videos", "3", "-o", "v.npz")
    assert command(*flags, *SMALL)[0] == 0
    before = [path.read_bytes() for path in sorted(tmp_path.glob("v-*"))]
    again = (*flags, "--from", "v-001.npz.json", "--force")
    for more in ((), ("--resume",)):
        code, _, err = command(*again, *more)
        assert (code, "add --first-video 1, or choose another OUT" in err) == (2, True)
    assert [path.read_bytes() for path in sorted(tmp_path.glob("v-*"))] == before
    assert command(*again, "--first-video", "1")[0] == 0
    renumbered = [path.read_bytes() for path in sorted(tmp_path.glob("v-*"))]
    assert command(*again, "--first-video", "1", "--resume")[0] == 0
    assert [path.read_bytes() for path in sorted(tmp_path.glob("v-*"))] == renumbered


@pytest.mark.parametrize(
    ("changes", "refine"),
    [
        (("--preset", "paper"), 0),
        (("--preset", "fast"), 1),
        (("--preset", "fast", "--refine", "3"), 3),
        (("--mode", "autoregressive"), 0),
        (("--mode", "hierarchical"), 2),
    ],
)
def test_refining_follows_the_preset_and_the_mode_that_are_asked_for(
    command, toy, tmp_path, settings_of, changes, refine
):
    flags = ("generate", "--bundle", toy)
    assert command(*flags, "-o", "a.npz", *SMALL, "--refine", "2")[0] == 0
    code, _, err = command(*flags, "--from", "a.npz.json", "-o", "b.npz", *changes)
    assert code == 0, err
    assert settings_of(tmp_path / "b.npz")["refine"] == refine
