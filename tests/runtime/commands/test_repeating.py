"""A video repeated from the settings beside it, as it was or changed."""

import numpy as np
import pytest
from toy_files import content, edited
from toy_films import film


@pytest.fixture
def repeat(command, toy):
    """Repeat `a.npz`, or what flags say, as `b.npz`; returns what is said."""

    def repeat(*flags, source="a.npz", out="b.npz", code=0, bundle=toy):
        words = ("generate", "--from", f"{source}.json", "--bundle", bundle, "-o", out)
        got, _, err = command(*words, *flags)
        assert got == code, err
        return err

    return repeat


@pytest.mark.parametrize("extra", [(), ("--sampler", "ddpm"), ("--preset", "fast")])
def test_a_video_is_repeated_from_its_sidecar(generate, repeat, frames_of, extra):
    generate("a.npz", "--exact", "--videos", "2", *extra)
    repeat(source="a-001.npz")
    assert np.array_equal(frames_of("a-001.npz"), frames_of("b.npz"))
    repeat("--seed", "8", source="a-001.npz", out="c.npz")
    assert not np.array_equal(frames_of("c.npz"), frames_of("b.npz"))


def test_a_repeat_with_another_model_or_condition_is_refused(
    generate, repeat, make_bundle, tmp_path, frames_of
):
    film(tmp_path / "in.mp4")
    film(tmp_path / "other.mp4", seconds=5)
    given = ("--condition", "in.mp4")
    generate("a.npz", *given)
    assert "continues 'in.mp4'; give it with --condition" in repeat(code=2)
    assert "the condition is not the one" in repeat("--condition", "other.mp4", code=1)
    assert "the bundle is not the one" in repeat(*given, bundle=make_bundle(0.5), code=1)
    repeat(*given)
    assert np.array_equal(frames_of("a.npz"), frames_of("b.npz"))


def test_a_repeat_by_another_backend_says_so(generate, repeat, tmp_path, caplog):
    generate("a.npz")
    repeat()
    assert "rounds in other places" not in caplog.text
    with edited(tmp_path / "a.npz.json") as told:
        own, told["arithmetic"] = told["arithmetic"], "abacus bf16"
    repeat("--force")
    assert f"made by 'abacus bf16' and is repeated by {own}" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", '{"frames": 3}', None])
def test_a_sidecar_that_is_none_is_refused(repeat, tmp_path, text):
    if text is not None:
        (tmp_path / "a.npz.json").write_text(text)
    told = repeat(code=1)
    assert told.count("\n") == 1
    assert "a.npz.json: " in told


@pytest.mark.parametrize(
    ("changes", "sampler"), [(("--sampler", "ddpm"), "ddpm"), (("--preset", "fast"), "dpmpp_2m")]
)
def test_another_sampler_brings_its_own_numbers_to_a_repeat(
    generate, repeat, settings_of, changes, sampler
):
    generate("a.npz", "--eta", "0.5")
    repeat(*changes)
    assert settings_of("b.npz")["sampler"] == sampler


@pytest.mark.slow  # whole videos of the built-in model
def test_other_steps_than_a_student_learnt_repeat_a_video_by_its_teacher(
    generate, repeat, settings_of
):
    cpu = ("--backend", "cpu")  # without a trial of which is faster
    generate("a.npz", "--sampler", "distilled", *cpu, bundle="sky-tiny")
    assert settings_of("a.npz")["sampler"] == "distilled"
    repeat("--steps", "2", *cpu, bundle="sky-tiny")
    assert settings_of("b.npz")["sampler"] == "dpmpp_2m"
    repeat("--steps", "4", "--force", *cpu, bundle="sky-tiny")
    assert settings_of("b.npz")["sampler"] == "distilled"
    generate("a.npz", "--steps", "2", "--refine", "9", "--force", *cpu, bundle="sky-tiny")
    repeat("--sampler", "distilled", "--force", *cpu, bundle="sky-tiny")
    assert settings_of("b.npz")["refine"] == 1


def test_the_quality_of_the_file_is_repeated_too(generate, repeat, tmp_path):
    generate("a.webm", "--crf", "50")
    repeat(source="a.webm", out="b.webm")
    assert (tmp_path / "a.webm").read_bytes() == (tmp_path / "b.webm").read_bytes()


@pytest.mark.parametrize(
    "field", [{"bundle": ["x"]}, {"frames": "many"}, {"sampler": None}, {"crf": "x"}]
)
def test_a_sidecar_that_was_edited_is_refused_in_one_line(command, generate, tmp_path, field):
    generate("a.npz")
    with edited(tmp_path / "a.npz.json") as settings:
        settings.update(field)
    code, _, err = command("generate", "--from", "a.npz.json", "-o", "b.npz")
    assert code in (1, 2)
    assert "Traceback" not in err


@pytest.mark.parametrize("out", ["b.gif", "b.npz", "b"])
def test_a_quality_is_forgotten_where_the_format_has_none(generate, repeat, settings_of, out):
    generate("a.mp4", "--crf", "50")
    repeat("--crf", "50", source="a.mp4", out=out, code=2)
    repeat(source="a.mp4", out=out)
    assert "crf" not in settings_of(out)


def test_a_quality_that_does_not_exist_is_refused_before_sampling(generate, repeat, tmp_path):
    generate("a.mp4")
    with edited(tmp_path / "a.mp4.json") as settings:
        settings["crf"] = 99
    told = repeat(source="a.mp4", out="b.mp4", code=1)
    assert "got crf 99, expected 0 (best) to 63" in told
    assert not (tmp_path / ".b.mp4.work").exists()


def test_what_was_joined_can_be_repeated_alone_and_the_other_way_round(
    generate, repeat, tmp_path, frames_of
):
    film(tmp_path / "in.mp4", seconds=2)
    given = ("--condition", "in.mp4")
    generate("both.npz", *given, "--join", "--exact")
    repeat(*given, source="both.npz", out="again.npz")
    alone = ("--no-join", "--fps", "5", "--no-exact")
    repeat(*given, *alone, source="both.npz", out="new.npz")
    # at the model's rate, not at that of the sidecar
    repeat(*given, "--join", source="new.npz", out="joined.npz")
    frames = [len(frames_of(name)) for name in ("again.npz", "new.npz", "joined.npz")]
    assert frames == [2 * 8 + 12, 12, 2 * 8 + 12]


def test_a_sidecar_from_before_keyframes_were_refined_repeats_without(
    generate, repeat, tmp_path, settings_of
):
    generate("a.npz", "--refine", "0")
    with edited(tmp_path / "a.npz.json") as settings:
        del settings["refine"]
    repeat()
    assert settings_of("b.npz")["refine"] == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    repeat("--refine", "2", out="c.npz")
    assert settings_of("c.npz")["refine"] == 2


@pytest.mark.slow  # they run the built-in model
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("--guidance", "0.5"), ("--mode", "short", "--frames", "8")),
        (("--condition", "in.mp4"), ("--condition", "in.mp4", "--overlap", "0")),
    ],
)
def test_what_a_changed_repeat_cannot_have_is_left_out(generate, repeat, tmp_path, before, after):
    film(tmp_path / "in.mp4")
    cpu = ("--backend", "cpu")
    generate("a.npz", *before, "--steps", "2", "--frames", "32", *cpu, bundle="sky-tiny")
    repeat(*after, *cpu, bundle="sky-tiny")


def test_a_sidecar_that_is_a_link_to_itself_is_no_traceback(generate, repeat, tmp_path):
    generate("a.npz")
    (tmp_path / "v-001.npz.json").symlink_to("v-001.npz.json")
    told = repeat("--videos", "3", out="v.npz", code=1)
    assert "v-001.npz.json, which is no file" in told
    assert told.count("\n") == 1


def test_a_sidecar_that_the_run_would_renumber_is_not_repeated_from(generate, repeat, tmp_path):
    """Or the same command, after an interruption, would make other videos in their place."""
    generate("v.npz", "--videos", "3")
    before = content(tmp_path)
    again = {"source": "v-001.npz", "out": "v.npz"}
    flags = ("--videos", "3", "--force")
    for more in ((), ("--resume",)):
        told = repeat(*flags, *more, code=2, **again)
        assert "add --first-video 1, or choose another OUT" in told
    assert content(tmp_path) == before
    repeat(*flags, "--first-video", "1", **again)
    renumbered = content(tmp_path)
    repeat(*flags, "--first-video", "1", "--resume", **again)
    assert content(tmp_path) == renumbered


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
    generate, repeat, settings_of, changes, refine
):
    generate("a.npz", "--refine", "2")
    repeat(*changes)
    assert settings_of("b.npz")["refine"] == refine
