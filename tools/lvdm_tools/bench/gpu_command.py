"""`lvdm-tools gpu-check`: measure what only a GPU can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.atomic import whole_file
from lvdm_engines.backends.backend import BACKENDS
from lvdm_engines.backends.gpu.driver import driver_problem
from lvdm_engines.backends.plan_facts import PlanOptions
from lvdm_engines.command_line import tell
from lvdm_engines.errors import BackendError, OptionsError, cause
from lvdm_engines.ranges import BatchRange, NumberRange, WholeRange
from lvdm_tools.outputs import check_free

if TYPE_CHECKING:
    from collections.abc import Callable

    from lvdm_tools.bench.gpu_check import GpuCheck


@click.command("gpu-check")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default="gpu-check",
    show_default=True,
    help="Folder for gpu-check.json and gpu-check.md; bundles and plans are kept there too.",
)
@click.option(
    "--model", type=click.Choice(["sky", "sky-tiny", "tiny"]), default="sky", show_default=True
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(BACKENDS),
    help="Only these. Default: all that need a GPU.",
)
@click.option(
    "--batch", type=BatchRange(), metavar="MIN:OPT:MAX", default="1:8:32", show_default=True
)
@click.option("--frames", type=WholeRange(1), default=64, show_default=True)
@click.option("--seconds", type=NumberRange(0), default=2.0, help="Per number. Default: 2.")
@click.option("--no-torch", is_flag=True, help="Leave PyTorch out.")
@click.option("--force", is_flag=True, help="Replace both reports of an earlier run.")
@click.option(
    "--dry-run", is_flag=True, help="Go through everything on the CPU with the tiny model."
)
def command(out: Path, *, force: bool, **options: Any) -> None:
    """Measure backends, parity, speed beside PyTorch and whole videos on this machine's GPU.

    For the paper-size model most of the time goes into exporting and compiling, which a second run
    (with --force: it replaces the reports) finds done; how long that takes on a GPU machine has not
    been measured. Every number is saved at once: an interrupted run keeps its report. Exits with 1
    where no backend can run, or one that can does not compile, agree with the CPU, run every graph
    or make a video.
    """
    report, numbers = out / "gpu-check.md", out / "gpu-check.json"
    check_free([report, numbers], force=force)
    problem = driver_problem()
    if problem and not options["dry_run"]:
        raise BackendError(
            f"gpu-check needs an NVIDIA GPU, and nothing was measured: {problem}; "
            "--dry-run goes through everything on the CPU"
        )
    from lvdm_tools.bench.gpu_check import run
    from lvdm_tools.bench.gpu_page import page, verdict

    def save(found: dict[str, Any]) -> None:
        _write(json.dumps(found, indent=1) + "\n", numbers)
        _write(page(found), report)

    try:
        out.mkdir(parents=True, exist_ok=True)
        found = run(_check(out, save, options))
    except OSError as err:
        raise OptionsError(
            f"{err.filename or out}: cannot be written: {cause(err)}; -o chooses another folder, "
            "what was measured before is kept"
        ) from err
    click.echo(page(found))
    tell(f"{report} and gpu-check.json are written")
    wrong = verdict(found)
    if wrong:
        raise BackendError(f"{wrong}; {report} says why")


def _write(text: str, path: Path) -> None:
    """Write a report, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def _check(out: Path, save: Callable[[dict[str, Any]], None], options: dict[str, Any]) -> GpuCheck:
    from lvdm_tools.bench.gpu_check import GpuCheck
    from lvdm_tools.bench.torch_baseline import EAGER

    settings = {name: options[name] for name in ("model", "seconds", "frames")}
    if options["dry_run"]:
        settings |= {
            "model": "tiny",
            "device": "cpu",
            "backends": BACKENDS,
            "variants": (EAGER,),
            "precision": "fp32",
            "batches": (1, 2),
        }
    if options["backends"]:
        settings["backends"] = options["backends"]
    if options["no_torch"]:
        settings["variants"] = ()
    return GpuCheck(
        work=out,
        report=tell,
        save=save,
        options=PlanOptions(batch=options["batch"]),
        **settings,
    )
