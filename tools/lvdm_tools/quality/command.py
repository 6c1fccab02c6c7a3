"""`lvdm-tools eval`: measure a bundle on unseen clips."""

from pathlib import Path
from typing import Any

import click
import msgspec

from lvdm_engines.atomic import partial_of, remove
from lvdm_engines.command_line import silence_stdout, tell
from lvdm_engines.completion import BUNDLE, DATA
from lvdm_engines.errors import ConfigError, LvdmError, OptionsError
from lvdm_rt.cli import generate
from lvdm_tools.outputs import check_free, write_report
from lvdm_tools.quality import scorecard
from lvdm_tools.quality.evaluate import Protocol, Report, evaluate

_COUNT = click.IntRange(min=1)
_SAMPLING = (
    *("mode", "preset", "sampler", "steps", "eta", "guidance", "noise_level"),
    *("refine", "batch_size"),
)


@click.command("eval")
@click.argument("bundle", shell_complete=BUNDLE)
@click.option(
    "--clips",
    type=click.IntRange(min=2),
    default=128,
    show_default=True,
    help="Clips to reconstruct, and to generate; 48 or more for a Fréchet distance.",
)
@click.option("--frames", type=_COUNT, default=16, show_default=True, help="Frames per clip.")
@click.option(
    "--skip",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Frames of each video before its clip: how well long videos keep.",
)
@click.option(
    "--conditions", type=_COUNT, default=32, show_default=True, help="Unseen clips to continue."
)
@click.option(
    "--long-videos",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Videos of 160 frames to search for seams.",
)
@click.option(
    "--data",
    default="synth",
    show_default=True,
    shell_complete=DATA,
    help="'synth', or a folder of videos or of folders of pictures.",
)
@click.option("--stride", type=_COUNT, default=1, show_default=True, help="Frame stride in DATA.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--beside",
    multiple=True,
    metavar="LABEL=BUNDLE",
    help="Measure another bundle too, for comparison.",
)
@click.option("--json", "json_out", type=click.Path(path_type=Path), help="Write all numbers.")
@click.option("--markdown", "table_out", type=click.Path(path_type=Path), help="Write the table.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--record", is_flag=True, help="Put the numbers into the bundle's manifest.")
def command(bundle: str, beside: tuple[str, ...], backend: str, **options: Any) -> None:
    """Measure BUNDLE on unseen clips and print a table.

    Clips are sampled in the model's own way, unless options of `lvdm-rt generate` say otherwise.
    """
    others = scorecard.labelled(beside)
    files = [path for path in (options["json_out"], options["table_out"]) if path]
    check_free(files, force=options["force"])
    _check_places(files)
    protocol = _protocol(options)
    report = _measure(bundle, backend, protocol)
    compared = {label: _measure(other, backend, protocol) for label, other in others.items()}
    encoded = msgspec.json.encode(scorecard.as_dict(report, compared))
    numbers = msgspec.json.format(encoded).decode()
    table = scorecard.markdown(report, compared)
    problems = []
    for path, text in ((options["json_out"], numbers), (options["table_out"], table)):
        try:  # each is written, whatever becomes of those before it
            if path:
                write_report(path, text, force=options["force"])
        except LvdmError as err:
            problems.append(str(err))
    try:
        if options["record"]:
            _record(bundle, scorecard.summary(report, compared))
    except LvdmError as err:
        problems.append(str(err))
    _print(table, problems)
    if problems:
        raise ConfigError("; ".join(problems))


command.params += [flag for flag in generate.params if flag.name in ("backend", *_SAMPLING)]


def _protocol(options: dict[str, Any]) -> Protocol:
    names = ("clips", "frames", "skip", "conditions", "long_videos", "data", "stride", "seed")
    sampling = {name: options[name] for name in _SAMPLING if options[name] is not None}
    return Protocol(**{name: options[name] for name in names}, sampling=sampling)


def _measure(bundle: str, backend: str, protocol: Protocol) -> Report:
    from lvdm_rt.pipeline import Pipeline

    with Pipeline.open(bundle, backend) as pipeline:
        return evaluate(pipeline, protocol, lambda text: tell(f"{bundle}: {text}"))


def _check_places(files: list[Path]) -> None:
    """Raise OptionsError for places where nothing could be written after minutes of measuring."""
    if len({path.resolve() for path in files}) < len(files):
        raise OptionsError(f"{files[0]} cannot hold both numbers and table; give two names")
    for path in files:
        if not path.parent.is_dir():
            raise OptionsError(f"cannot write {path}: there is no folder {path.parent}; make it")
        probe = partial_of(path)
        try:
            probe.open("xb").close()
        except OSError as err:
            raise OptionsError(
                f"cannot write {path}: {err.strerror}; choose another name or place"
            ) from err
        remove(probe)


def _print(table: str, problems: list[str]) -> None:
    """Print the table; what has failed before is told, and not that stdout is gone as well."""
    try:
        click.echo(table, nl=False)
    except OSError:
        if not problems:
            raise
        silence_stdout()


def _record(bundle: str, numbers: dict[str, Any]) -> None:
    tell(f"recorded in {scorecard.record(bundle, numbers)}")
