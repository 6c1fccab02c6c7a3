"""`lvdm-tools experiment`: the paper's experiment on a model, a plot for each question."""

from pathlib import Path
from typing import Any

import click

from lvdm_engines.backends.backend import BACKENDS
from lvdm_engines.bundle import load_bundle
from lvdm_engines.command_line import tell
from lvdm_engines.completion import BUNDLE, DATA
from lvdm_engines.errors import OptionsError, cause
from lvdm_engines.ranges import WholeRange
from lvdm_rt.bounds import MAX_SEED, MAX_VIDEOS
from lvdm_tools.outputs import check_free, write_report
from lvdm_tools.quality import curves
from lvdm_tools.quality.comparing import ComparisonRequest, run
from lvdm_tools.quality.experiment import EVERY, FRAMES, QUESTIONS, VIDEOS, questions
from lvdm_tools.quality.networks import RANDOM

_COUNT = WholeRange(min=1)


@click.command("experiment")
@click.argument("bundle", default="sky-tiny", shell_complete=BUNDLE)
@click.option(
    "--autoregressive",
    metavar="BUNDLE",
    shell_complete=BUNDLE,
    help="A model of the same data that was trained at stride 1, for the autoregressive mode. "
    "Default: BUNDLE alone is measured, in its hierarchical mode.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="For all reports."
)
@click.option("--clips", type=WholeRange(2, MAX_VIDEOS), default=VIDEOS, show_default=True,
              help="Videos of each setting.")  # fmt: skip
@click.option("--frames", type=_COUNT, default=FRAMES, show_default=True, help="Of each video.")
@click.option("--block", type=_COUNT, default=64, show_default=True,
              help="Frames that are measured together.")  # fmt: skip
@click.option("--every", type=_COUNT, default=EVERY, show_default=True,
              help="Decode and measure every Nth block, and the last.")  # fmt: skip
@click.option("--features", default=RANDOM, show_default=True, metavar="random|BUNDLE|FILE",
              shell_complete=BUNDLE,
              help="The network in whose features distances are taken.")  # fmt: skip
@click.option("--data", default="synth", show_default=True, shell_complete=DATA,
              help="'synth', or a folder of videos or of folders of pictures.")  # fmt: skip
@click.option("--stride", type=_COUNT, default=1, show_default=True, help="Frame stride in DATA.")
@click.option("--seed", type=WholeRange(0, MAX_SEED), default=0, show_default=True)
@click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto",
              show_default=True)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace files that exist.")
def command(
    bundle: str, autoregressive: str | None, out: Path, *, force: bool, **options: Any
) -> None:
    """Run the paper's experiment on BUNDLE: modes, perturbation, guidance and samplers.

    Settings are put beside real clips along long videos, as `eval --over-time` does, each once. DIR
    gets a plot of each question when it is answered, and in the end a table and all numbers. What
    is measured is kept: run again after an interruption, it goes on where it stopped.
    """
    models = {"hierarchical": bundle} | (
        {"autoregressive": autoregressive} if autoregressive else {}
    )
    asked = questions({mode: (name, load_bundle(name).manifest) for mode, name in models.items()})
    check_free([out / name for name in (*_REPORTS, *_plots())], force=force)
    _make(out)
    options["videos"] = options.pop("clips")
    found: list[curves.VideoComparison] = []
    for number, (question, subjects) in enumerate(asked.items(), start=1):
        tell(f"{question}: question {number} of {len(asked)}, {len(subjects)} settings")
        request = ComparisonRequest(subjects, over_time=True, **options)
        found.append(run(request, tell))
        write_report(out / f"{question}.png", curves.as_png(found[-1]), force=force)
    whole = curves.merged(found)
    for name, report in _REPORTS.items():
        write_report(out / name, report(whole), force=force)
    click.echo(curves.as_markdown(whole), nl=False)


_REPORTS = {
    "experiment.md": curves.as_markdown,
    "experiment.csv": curves.as_csv,
    "experiment.json": curves.as_json,
}


def _plots() -> list[str]:
    return [f"{question}.png" for question in QUESTIONS]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OptionsError(f"cannot make {folder}: {cause(err)}") from err
