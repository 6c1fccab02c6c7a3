"""What the documents say of the code, held against the code."""

import re
import shlex
import tomllib
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from documented import Command, commands, pages, to_run
from test_arrows import LAYERS
from test_command_lines import SCRIPTS

import lvdm_rt
from lvdm_rt.cli import batch, generate, serve

ROOT = Path(__file__).parents[1]
WRITTEN = [(page, command) for page in pages(ROOT) for command in commands(page)]
UNFINISHED = (click.MissingParameter, click.exceptions.NoArgsIsHelpError)
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]


def text(name):
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    outside = ("http://", "https://")
    assert [x for x in links if not x.startswith(outside) and not (page.parent / x).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_project_that_is_named_exists(page):
    named = re.findall(
        r"`((?:engines|runtime|export|tools|tests|docs|scripts)/[\w./-]+)`", page.read_text("utf-8")
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_stands_in_the_index():
    index = text("docs/index.md")
    pages = [p.relative_to(ROOT / "docs").as_posix() for p in PAGES if p.parent != ROOT]
    assert [page for page in pages if f"({page})" not in index + "(index.md)"] == []


def test_the_rows_of_the_architecture_are_the_ones_that_are_tested():
    told = re.search(r"<!-- layers -->\n+```\n(.*?)```", text("docs/architecture.md"), re.DOTALL)
    assert told is not None
    rows = [
        "\n".join([package, *(f"    {row}" for row in reversed(rows))])
        for package, rows in LAYERS.items()
    ]
    assert told[1] == "\n".join(rows) + "\n"


def test_every_module_on_the_way_from_noise_to_file_exists():
    page = text("docs/architecture.md")
    way = page[page.index("## From noise to file") : page.index("## From checkpoint")]
    modules = set(re.findall(r"\b((?:commands|long|diffusion|decoding|video)/\w+)", way))
    assert len(modules) > 10
    assert [m for m in modules if not (ROOT / "runtime/lvdm_rt" / f"{m}.py").exists()] == []


def test_the_table_of_options_names_every_option_of_generate():
    table = text("docs/generate.md").partition("## Options")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `(-{1,2}[\w-]+)", table, re.MULTILINE))
    assert told == {max(option.opts, key=len) for option in generate.params}


def test_the_page_of_batch_names_every_option():
    table = text("docs/batch.md").partition("## Options")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(-{1,2}[a-z][\w-]*)", table))
    assert {o for option in batch.params for o in option.opts if o.startswith("-")} - told == set()


def test_the_table_of_options_names_every_option_of_serve():
    table = text("docs/serving.md").partition("## Options")[2].partition("\n## ")[0]
    names = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    told = set(re.findall(r"--[\w-]+", " ".join(names)))
    assert told == {max(option.opts, key=len) for option in serve.params}


def test_the_reference_names_everything_that_the_library_gives():
    page = text("docs/reference/api.md")
    told = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)", page, re.MULTILINE)}
    assert set(lvdm_rt.__all__) - told == set()


def expanded(words):
    """The words as bash hands them over: `model.{json,safetensors}` is two."""
    parts = [(word, re.fullmatch(r"(.*)\{(.*)\}(.*)", word)) for word in words]
    return [
        made
        for word, part in parts
        for made in ([f"{part[1]}{x}{part[3]}" for x in part[2].split(",")] if part else [word])
    ]


def parse(name, arguments):
    """Find a command in its group and parse its options, without running it."""
    command = getattr(SCRIPTS[name], name.replace("-", "_"))
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(click.Context(command), arguments[0])
        if found is None:
            raise click.NoSuchOption(arguments[0])
        command, arguments = found, arguments[1:]
    with suppress(click.exceptions.Exit):  # --help
        command.make_context(name, list(arguments))


def check(command):
    """Fail unless a line of a page names what exists, each of its commands."""
    for line in re.split(r"&&|\|", command.text):
        name, *arguments = expanded(shlex.split(line, comments=True))
        if name in SCRIPTS:
            try:
                parse(name, arguments)
            except UNFINISHED:  # in the text, a command is named without all that it needs
                assert command.inline
        elif name == "make":
            targets = re.findall(r"^([\w-]+):", text("Makefile"), re.MULTILINE)
            assert [a for a in arguments if a not in targets and "=" not in a] == []
        elif name == "pip":
            extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
            asked = re.findall(r"[\w-]+", "".join(re.findall(r"\.\[(.*?)\]", line)))
            assert [extra for extra in asked if extra not in extras] == []
        elif name.startswith("python") and arguments[0] == "-m":
            assert find_spec(arguments[1])
        elif "/" in name:
            assert (ROOT / name).exists()


@pytest.mark.parametrize(
    ("page", "command"), WRITTEN, ids=[f"{p.stem}-{c.title[:40]}" for p, c in WRITTEN]
)
def test_every_command_of_the_pages_exists_with_its_options(page, command):
    if command.language == "python":
        compile(command.text, str(page), "exec")
    else:
        check(command)


def test_the_pages_tell_how_many_of_their_commands_were_not_run():
    counts = Counter(c.reason for page in pages(ROOT) for c in to_run(page) if c.reason)
    told = text("docs/installation.md").partition("| why not | commands |")[2].partition("\n\n")[0]
    assert dict(re.findall(r"^\| ([\w ]+) \| (\d+) \|$", told, re.MULTILINE)) == {
        reason: str(count) for reason, count in counts.items()
    }


def test_no_command_has_a_hole_to_be_filled_in():
    hole = re.compile(r"<[\w ]+>")
    shell = [command.text for _, command in WRITTEN if command.language == "sh"]
    assert [line for line in shell if hole.search(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "lvdm-rt generate -o sky.mp4 --frame-count 8",
        "lvdm-rt generate -o sky.mp4 --sampler euler",
        "lvdm-tools eval",
        "lvdm-rt create -o sky.mp4",
        "lvdm-tools train denoiser --config toy --data synth --out runs/unet",
        "lvdm-tools eval sky-tiny --clips many",
        "lvdm-export build-engines --predict predict.yaml --out my-bundle",
        "make everything",
        "pip install '.[gpu]'",
        "python -m lvdm_tools.bench.gone",
        "cd lvdm-rt && scripts/gone.sh",
    ],
)
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises((click.UsageError, AssertionError)):
        check(Command(line, "sh"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_of_commands_says_that_it_is_one(page):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    command = re.compile(r"^\$? ?(?:git|make|pip|python3?|lvdm-\w+|docker|eval) ", re.MULTILINE)
    marked = {"sh", "python"}
    assert [
        block for language, block in blocks if language not in marked and command.search(block)
    ] == []
