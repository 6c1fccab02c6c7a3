"""`lvdm-tools eval`: measure a bundle on unseen clips, or compare sets of videos."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from lvdm_engines.atomic import partial_of, remove
from lvdm_engines.command_line import silence_stdout, tell
from lvdm_engines.completion import BUNDLE, DATA
from lvdm_engines.errors import ConfigError, LvdmError, OptionsError, cause
from lvdm_engines.ranges import WholeRange
from lvdm_rt.bounds import MAX_SEED, MAX_VIDEOS
from lvdm_rt.cli import generate
from lvdm_tools.outputs import check_free, write_report
from lvdm_tools.quality import curves, scorecard
from lvdm_tools.quality.comparing import ComparisonRequest, read_subjects, run
from lvdm_tools.quality.evaluate import Protocol, Report, evaluate
from lvdm_tools.quality.networks import RANDOM
from lvdm_tools.quality.subjects import SETTINGS, Asked

_COUNT = WholeRange(min=1)
_FILE = click.Path(path_type=Path)
# options of one of the two kinds of measuring, which the other one would not heed
_OF_TABLES = ("skip", "conditions", "long_videos", "beside", "record")
_OF_COMPARISONS = ("block", "every", "repeats", "csv_out", "plot_out")
# fmt: off
_OPTIONS = [
    click.Option(["--compare"], is_flag=True,
                 help="Put all subjects beside real clips, in one table and plot."),
    click.Option(["--over-time"], is_flag=True,
                 help="Do so for every block of frames of long videos."),
    click.Option(["--features"], metavar="random|BUNDLE|FILE", shell_complete=BUNDLE,
                 help="The network in whose features distances are taken: random ones, the encoder "
                      "of a bundle, or the I3D network of FVD. [default: random]"),
    click.Option(["--clips"], type=WholeRange(2, MAX_VIDEOS),
                 help="Clips to reconstruct, and to generate; 48 or more for a Fréchet distance. "
                      "Compared are so many videos of each. "
                      "[default: 128; 16 over time, 2048 for FVD]"),
    click.Option(["--frames"], type=_COUNT,
                 help="Frames per clip; over time, of a video. [default: 16, 512 over time]"),
    click.Option(["--block"], type=_COUNT, default=64, show_default=True,
                 help="Frames that are measured together over time."),
    click.Option(["--every"], type=_COUNT, default=1, show_default=True,
                 help="Over time, measure only every Nth block, and the last. The others are "
                      "sampled but not decoded, which takes half the time or less."),
    click.Option(["--repeats"], type=_COUNT, default=1, show_default=True,
                 help="Compare so often, with new videos each time; tells the standard deviation."),
    click.Option(["--skip"], type=WholeRange(min=0), default=0, show_default=True,
                 help="Frames of each video before its clip: how well long videos keep."),
    click.Option(["--conditions"], type=_COUNT, default=32, show_default=True,
                 help="Unseen clips to continue."),
    click.Option(["--long-videos"], type=WholeRange(min=0), default=8, show_default=True,
                 help="Videos of 160 frames to search for seams."),
    click.Option(["--data"], default="synth", show_default=True, shell_complete=DATA,
                 help="'synth', or a folder of videos or of folders of pictures."),
    click.Option(["--stride"], type=_COUNT, default=1, show_default=True,
                 help="Frame stride in DATA."),
    click.Option(["--seed"], type=WholeRange(0, MAX_SEED), default=0, show_default=True),
    click.Option(["--beside"], multiple=True, metavar="LABEL=BUNDLE",
                 help="Measure another bundle too, for comparison."),
    click.Option(["--json", "json_out"], type=_FILE, help="Write all numbers."),
    click.Option(["--csv", "csv_out"], type=_FILE, help="Write the numbers of a comparison."),
    click.Option(["--markdown", "table_out"], type=_FILE, help="Write the table."),
    click.Option(["--plot", "plot_out"], type=_FILE, help="Draw a comparison, as PNG."),
    click.Option(["--force"], is_flag=True, help="Replace files that exist."),
    click.Option(["--record"], is_flag=True, help="Put the numbers into the bundle's manifest."),
]
# fmt: on


@click.command("eval", params=_OPTIONS)
@click.argument("subjects", nargs=-1, required=True, metavar="SUBJECT…", shell_complete=BUNDLE)
@click.pass_context
def command(context: click.Context, /, subjects: tuple[str, ...], **options: Any) -> None:
    """Measure a bundle on unseen clips, or compare sets of videos, and print a table.

    A SUBJECT is a bundle, whose clips are sampled in the model's own way unless options of
    `lvdm-rt generate` say otherwise, LABEL=BUNDLE:key=value,… with settings of its own, or
    LABEL=FOLDER with videos. One bundle alone gets the whole report; of the built-in model it
    tells the targets, and fails where one is missed.
    """
    asked = read_subjects(subjects)
    compares = bool(
        options["compare"] or options["over_time"] or options["features"] or len(asked) > 1
    ) or any(one.settings or one.is_folder for one in asked)
    _check_kind(context, compares=compares)
    names = ("json_out", "csv_out", "table_out", "plot_out")
    files = [options[name] for name in names if options[name]]
    check_free(files, force=options["force"])
    _check_places(files)
    if compares:
        _compare(asked, options)
    else:
        _report(asked[0].what, options)


def _check_kind(context: click.Context, *, compares: bool) -> None:
    """Raise OptionsError for what was given and would not be heeded."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in (_OF_TABLES if compares else _OF_COMPARISONS)
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given and compares:
        raise OptionsError(f"{given[0]} goes with the report of one bundle; leave it out here")
    if given:
        raise OptionsError(f"{given[0]} goes with --compare or --over-time; give one of them")


def _compare(asked: list[Asked], options: dict[str, Any]) -> None:
    names = (
        "data",
        "backend",
        "over_time",
        "frames",
        "block",
        "every",
        "repeats",
        "stride",
        "seed",
    )
    request = ComparisonRequest(
        asked,
        features=options["features"] or RANDOM,
        videos=options["clips"],
        sampling={name: options[name] for name in SETTINGS if options[name] is not None},
        **{name: options[name] for name in names},
    )
    found = run(request, tell)
    table = curves.as_markdown(found)
    reports: dict[Path | None, str | bytes] = {
        options["json_out"]: curves.as_json(found),
        options["csv_out"]: curves.as_csv(found),
        options["table_out"]: table,
    }
    if options["plot_out"]:
        reports[options["plot_out"]] = curves.as_png(found)
    _conclude(table, _write(reports, force=options["force"]))


def _report(bundle: str, options: dict[str, Any]) -> None:
    import lvdm_tools.quality.random_features  # noqa: F401 - without torch it ends here, not in minutes

    others = scorecard.labelled(options["beside"])
    protocol = _protocol(options)
    report = _measure(bundle, options["backend"], protocol)
    compared = {k: _measure(other, options["backend"], protocol) for k, other in others.items()}
    encoded = msgspec.json.encode(scorecard.as_dict(report, compared))
    table = scorecard.markdown(report, compared)
    problems = _write(
        {options["json_out"]: msgspec.json.format(encoded).decode(), options["table_out"]: table},
        force=options["force"],
    )
    try:
        if options["record"]:
            _record(bundle, scorecard.summary(report, compared))
    except LvdmError as err:
        problems.append(str(err))
    if missed := scorecard.missed(report):
        problems.append(f"{report.bundle} misses its targets: {', '.join(missed)}")
    _conclude(table, problems)


def _write(reports: Mapping[Path | None, str | bytes], *, force: bool) -> list[str]:
    """Write each report that has a place, whatever becomes of those before it."""
    problems = []
    for path, report in reports.items():
        try:
            if path:
                write_report(path, report, force=force)
        except LvdmError as err:
            problems.append(str(err))
    return problems


def _conclude(table: str, problems: list[str]) -> None:
    _print(table, problems)
    if problems:
        raise ConfigError("; ".join(problems))


command.params += [flag for flag in generate.params if flag.name in ("backend", *SETTINGS)]


def _protocol(options: dict[str, Any]) -> Protocol:
    names = ("clips", "frames", "skip", "conditions", "long_videos", "data", "stride", "seed")
    given = {name: options[name] for name in names if options[name] is not None}
    sampling = {name: options[name] for name in SETTINGS if options[name] is not None}
    return Protocol(**given, sampling=sampling)


def _measure(bundle: str, backend: str, protocol: Protocol) -> Report:
    from lvdm_rt.pipeline import Pipeline

    with Pipeline.open(bundle, backend) as pipeline:
        return evaluate(pipeline, protocol, lambda text: tell(f"{bundle}: {text}"))


def _check_places(files: list[Path]) -> None:
    """Raise OptionsError for places where nothing could be written after minutes of measuring."""
    if len({path.resolve() for path in files}) < len(files):
        raise OptionsError(f"{files[0]} cannot hold two reports; give each a name")
    for path in files:
        if not path.parent.is_dir():
            raise OptionsError(f"cannot write {path}: there is no folder {path.parent}; make it")
        probe = partial_of(path)
        try:
            probe.open("xb").close()
        except OSError as err:
            raise OptionsError(f"cannot write {path}: {cause(err)}") from err
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
