"""`lvdm-tools bench`: how fast this machine runs a bundle, beside torch."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.backends.backend import BACKENDS, MOST_THREADS
from lvdm_engines.bundle import load_bundle
from lvdm_engines.command_line import tell
from lvdm_engines.completion import BUNDLE
from lvdm_engines.errors import OptionsError
from lvdm_engines.ranges import WholeRange
from lvdm_tools.outputs import check_free, write_report

if TYPE_CHECKING:
    from lvdm_tools.bench.clock import Found

_PAPER_SIZE = "sky-predict"


@click.command("bench")
@click.argument("bundle", default="sky-tiny", shell_complete=BUNDLE)
@click.option("--quick", is_flag=True, help="Two minutes on two cores instead of a quarter hour.")
@click.option(
    "--only",
    "sections",
    multiple=True,
    type=click.Choice(["graphs", "videos", "time", "growth"]),
    help="Only this section; may be repeated.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(BACKENDS),
    help="Only this backend; may be repeated. Default: all that are usable.",
)
@click.option(
    "--threads",
    type=WholeRange(1, MOST_THREADS),
    help="Of every run. Default: all cores; take 1 where other programs work beside.",
)
@click.option(
    "--paper-size",
    is_flag=True,
    help="Instead of BUNDLE, networks of the paper's sizes with random weights, and their memory.",
)
@click.option("--json", "json_out", type=click.Path(path_type=Path), help="Write all numbers.")
@click.option(
    "--markdown",
    "markdown_out",
    type=click.Path(path_type=Path),
    help="Write the tables; into a page that has the markers of docs/benchmarks.md, between them.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
def command(
    bundle: str, json_out: Path | None, markdown_out: Path | None, *, force: bool, **options: Any
) -> None:
    """Measure BUNDLE, by default the built-in one, on this machine's processor.

    Graphs, whole videos, where their time goes, and how they grow: every usable backend beside the
    authors' code in torch, in turns. What fails is recorded as such. Numbers are written after each
    section.
    """
    text = _page_to_fill(markdown_out)
    files = [json_out, None if text else markdown_out]
    if not Path("/proc/stat").exists():
        raise OptionsError("bench needs Linux, whose /proc tells what else runs; run it there")
    check_free([path for path in files if path], force=force)
    from lvdm_tools.bench.page import filled, page

    def save(found: Found) -> None:
        if json_out:
            write_report(json_out, json.dumps(found, indent=1) + "\n")
        if markdown_out:
            write_report(markdown_out, filled(text, found) or page(found))

    found = _measure(bundle, save, options)
    click.echo(page(found), nl=False)


def _measure(bundle: str, save: Any, options: dict[str, Any]) -> Found:
    from lvdm_tools.bench.bench import FULL, PAPER_SIZE, QUICK, Bench, run
    from lvdm_tools.bench.clock import alone, attempt
    from lvdm_tools.bench.paper_size import export

    asked = {name: options[name] for name in ("backends", "sections", "threads")}
    if not options["paper_size"]:
        effort = QUICK if options["quick"] else FULL
        return run(Bench(load_bundle(bundle), effort, tell, save, **asked))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / _PAPER_SIZE
        exported = attempt(alone, export, _PAPER_SIZE, out, tell)
        found = {"export": exported}
        asked |= {"memory": True, "sections": ("graphs",)}
        bench = Bench(load_bundle(out), PAPER_SIZE, tell, lambda more: save(found | more), **asked)
        return found | run(bench)


def _page_to_fill(path: Path | None) -> str:
    """Return the text of a page that has the markers, or nothing."""
    from lvdm_tools.bench.page import BEGIN, END

    try:
        text = path.read_text("utf-8") if path and path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""
    return text if BEGIN in text and END in text.partition(BEGIN)[2] else ""
