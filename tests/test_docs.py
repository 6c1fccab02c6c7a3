"""What the documents say of the code, held against the code."""

import re
from pathlib import Path

import pytest
from test_arrows import LAYERS

from lvdm_rt.cli import generate

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]


def text(name: str) -> str:
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
    assert told == {max(option.opts, key=len) for option in generate.params} - {"--prompt"}
