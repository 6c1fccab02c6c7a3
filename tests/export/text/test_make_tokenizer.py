"""`lvdm-export make-tokenizer`, and what build-engines says of text options."""

import pytest
from tokenizers import Tokenizer
from toy_files import names
from toy_t2v import VOCABULARY, write_merges

from lvdm_export import cli


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


@pytest.fixture
def merges(tmp_path):
    return write_merges(tmp_path / "merges.txt")


def test_a_tokenizer_is_made_of_a_list_of_merges(run, merges, tmp_path):
    out = tmp_path / "tokenizer.json"
    code, told = run("make-tokenizer", merges, "--out", out, "--tokens", "9")
    assert (code, told) == (
        0,
        f"{out}: prompts of 9 tokens; give it to build-engines with --tokenizer\n",
    )
    ids = Tokenizer.from_file(str(out)).encode("sky").ids
    assert ids == [VOCABULARY - 2, 513, *[VOCABULARY - 1] * 7]


def test_a_file_is_replaced_only_when_asked(run, merges, tmp_path):
    out = tmp_path / "tokenizer.json"
    out.write_bytes(b"mine")
    code, told = run("make-tokenizer", merges, "--out", out)
    assert (code, out.read_bytes()) == (1, b"mine")
    assert told.endswith("already exists; choose another name or pass --force\n")
    assert run("make-tokenizer", merges, "--out", out, "--force")[0] == 0
    assert out.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("none.gz", "--out", "t.json"), 1, "cannot read none.gz: No such file or directory"),
        (("merges.txt", "--out", "no/t.json"), 1, "no/t.json: cannot be written: No such file"),
        (("merges.txt",), 2, "Missing option '--out'"),
        (("merges.txt", "--out", "t.json", "--tokens", "2"), 2, "2 is not in the range 3<=x<=4096"),
    ],
)
def test_what_cannot_be_made_is_said_and_nothing_is_written(
    run, merges, tmp_path, monkeypatch, arguments, code, told
):
    monkeypatch.chdir(tmp_path)
    got, said = run("make-tokenizer", *arguments)
    assert got == code
    assert told in said
    assert names(tmp_path) == ["merges.txt"]


@pytest.mark.parametrize("option", ["--text-encoder", "--tokenizer"])
def test_a_finished_bundle_is_not_given_text_parts(run, option):
    arguments = ("--bundle", "sky-tiny", "--backend", "tensorrt", option, "x")
    code, told = run("build-engines", *arguments)
    assert code == 2
    assert "--bundle compiles what is there" in told
