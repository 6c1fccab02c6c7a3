"""What a line of a list means, and what is said of one that means nothing."""

import json
from pathlib import Path

import pytest

from lvdm_engines.bundle import load_bundle
from lvdm_engines.errors import OptionsError
from lvdm_rt.scale.worklist import BadJob, BatchJob, ForAll, read_jobs


@pytest.fixture
def read(tmp_path, toy):
    """Read the jobs of a list of lines, with what holds for all."""

    def read(*lines, bundle=toy, **common):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "list.jsonl").write_bytes("\n".join(texts).encode("utf-8", "surrogateescape"))
        how = ForAll(out=tmp_path, **common)
        return list(read_jobs(tmp_path / "list.jsonl", how, load_bundle(bundle).manifest))

    return read


def test_what_a_line_leaves_out_is_as_it_is_for_all(read):
    one, two = read({"seed": 3}, {"frames": 7, "name": "b.gif"}, options={"frames": 5, "seed": 9})
    assert (one.name, one.line, one.call.settings.seed) == ("line-000001.mp4", 1, 3)
    assert one.call.settings.frames == 5
    assert (two.name, two.call.settings.seed, two.call.settings.frames) == ("b.gif", 9, 7)


def test_null_in_a_line_is_the_models_own_value(read):
    common = {"sampler": "ddpm"}
    for_all, own = read({}, {"sampler": None}, options=common)
    assert (for_all.call.settings.sampler, own.call.settings.sampler) == ("ddpm", "ddim")


def test_a_line_that_is_no_json_is_a_prompt(read, told):
    lines = ("red sky", {"prompt": "blue"}, {"prompts": [[0, "red"], [9, "blue"]]}, {})
    jobs = read(*lines, bundle=told, options={"prompts": [(0, "green")]})
    texts = [job.call.settings.prompts for job in jobs]
    assert texts == [((0, "red sky"),), ((0, "blue"),), ((0, "red"), (9, "blue")), ((0, "green"),)]


def test_a_condition_is_looked_for_beside_the_list(read, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"frames")
    beside, none, other = read(
        {"condition": "a.npz", "join": True},
        {"condition": None},
        {"max_pixels": 9},
        condition=tmp_path / "list.jsonl",
    )
    assert (beside.call.condition, beside.call.join) == (tmp_path / "a.npz", True)
    assert (none.call.condition, none.call.join) == (None, False)
    assert (other.call.condition, other.call.max_pixels) == (tmp_path / "list.jsonl", 9)


def test_a_quality_for_all_is_for_those_that_have_one(read):
    jobs = read({}, {"name": "a.npz"}, {"name": "b.webm", "crf": 5}, crf=30)
    assert [job.call.crf for job in jobs] == [30, None, 5]


def test_the_digest_of_a_job_is_of_all_that_its_video_depends_on(read, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"frames")
    line = {"seed": 3, "condition": "a.npz", "crf": 9}
    (job,) = read(line)
    assert read(line, options={"batch_size": 7})[0].digest == job.digest
    for change in ({"seed": 4}, {"crf": 8}, {"join": True}, {"exact": True}, {"condition": None}):
        assert read({**line, **change})[0].digest != job.digest
    (tmp_path / "a.npz").write_bytes(b"others")
    assert read(line)[0].digest != job.digest


BAD = [
    ('{"seed": 3', "Input data was truncated; expected a prompt, or JSON with name"),
    ("\udcff", "can't decode byte 0xff"),
    ("[" * 3, "got prompt '[[[', but toy was not trained with text"),
    ({"sed": 3}, "got 'sed', which no job has; expected"),
    ({"seed": -1}, "got seed -1, expected a whole number from 0"),
    ({"seed": "3"}, "Expected `int`, got `str` - at `$.seed`"),
    ({"frames": 10**8}, "got frames 100000000"),
    ({"videos": 2}, "write a line for each"),
    ({"out": "a.mp4"}, "got out in a line; give its name in the common folder as name"),
    ({"backend": "cpu"}, "got backend in a line, which holds for all: give --backend instead"),
    ({"name": "../a.mp4"}, "got name '../a.mp4', expected one of a file in the common folder"),
    ({"name": ".a.mp4"}, "no dot in front"),
    ({"name": ""}, "got name ''"),
    ({"name": "a\nb.mp4"}, "got name 'a\\nb.mp4'"),
    ({"name": "a.avi"}, "suffix '.avi' is not one of"),
    ({"name": "n" * 300}, "File name too long"),
    ({"name": 3}, "Expected `str | null`, got `int`"),
    ({"condition": "gone.mp4"}, "gone.mp4: there is no such file"),
    ({"join": True}, "join belongs to a condition, which was not given"),
    ({"fade": 3}, "fade belongs to a condition, which was not given"),
    ({"condition": "list.jsonl", "join": True, "fps": 8}, "leave out fps"),
    ({"name": "a.npz", "crf": 3}, "got crf 3 for"),
    ({"max_pixels": 0}, "got max_pixels 0"),
    ({"sampler": "ddpm", "eta": 0.5}, "got eta with sampler ddpm"),
    ({"mode": "short"}, "mode short needs a short graph"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[str(line)[:30] for line, _ in BAD])
def test_a_line_that_means_nothing_is_named_and_those_beside_it_are_read(read, line, message):
    before, bad, after = read({}, line, {})
    assert isinstance(bad, BadJob)
    assert (bad.line, message in bad.reason) == (2, True), bad.reason
    assert (before.line, after.line) == (1, 3)


def test_a_name_that_comes_twice_is_named_with_the_line_that_has_it(read):
    first, _, second = read({"name": "a"}, {}, {"name": "a.mp4"})
    assert isinstance(first, BatchJob)
    assert second.reason == "the name a.mp4 is that of line 1 already; give it another"


def test_seeds_are_jobs_whose_names_do_not_depend_on_how_many_there_are(toy):
    jobs = list(read_jobs(range(3, 5), ForAll(out=Path()), load_bundle(toy).manifest))
    assert [job.name for job in jobs] == ["seed-000003.mp4", "seed-000004.mp4"]
    assert [(job.line, job.call.settings.seed) for job in jobs] == [(None, 3), (None, 4)]


def test_no_list_at_all_is_one_error(toy, tmp_path):
    with pytest.raises(OptionsError, match="cannot be read"):
        list(read_jobs(tmp_path / "gone", ForAll(out=tmp_path), load_bundle(toy).manifest))
