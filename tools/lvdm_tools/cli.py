"""The `lvdm-tools` command: the only module here that prints and exits.

Exit codes: 0 done · 1 an error that one line explains · 2 usage · 130 interrupted.
Heavy modules are imported by the command that needs them: `--help` answers at once.
"""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.command_line import HELP, CommandLine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lvdm_tools.train.config import Run

_FORWARD: Any = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group(context_settings=HELP)
@click.version_option(package_name="lvdm-rt")
def lvdm_tools() -> None:
    """Train and measure latent video diffusion models, and make data for them."""
    logging.getLogger("lvdm_tools").setLevel(logging.INFO)


@lvdm_tools.command(context_settings=_FORWARD, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def synth(arguments: tuple[str, ...]) -> Any:
    """Write a procedural sky time-lapse as videos."""
    from lvdm_tools.data.command import command

    return _forward(command, arguments)


@lvdm_tools.command("eval", context_settings=_FORWARD, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def evaluate(arguments: tuple[str, ...]) -> Any:
    """Measure a bundle on unseen clips."""
    from lvdm_tools.quality.command import command

    return _forward(command, arguments)


@lvdm_tools.command("gpu-check", context_settings=_FORWARD, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def gpu_check(arguments: tuple[str, ...]) -> Any:
    """Measure backends, parity and speed on this machine's GPU."""
    from lvdm_tools.bench.command import command

    return _forward(command, arguments)


def _forward(command: click.Command, arguments: tuple[str, ...]) -> Any:
    name = click.get_current_context().command_path
    settings: Any = HELP
    return command.main(list(arguments), prog_name=name, standalone_mode=False, **settings)


@lvdm_tools.group()
def train() -> None:
    """Train an autoencoder, then a denoiser on its latents."""


# fmt: off
_TRAIN_OPTIONS = (
    click.option("--config", required=True, metavar="C.yaml",
                 help="A YAML file, or the name of a ready config."),
    click.option("--data", required=True, metavar="DIR|synth",
                 help="A folder of videos, or the built-in synthetic sky."),
    click.option("--out", type=click.Path(path_type=Path), required=True, metavar="RUN",
                 help="The run's folder."),
    click.option("--resume", is_flag=True, help="Go on from the last checkpoint in RUN."),
    click.option("--steps", type=click.IntRange(min=1),
                 help="Length of the whole run, instead of the config's."),
    click.option("--start-from", type=click.Path(path_type=Path), metavar="RUN",
                 help="A run of the same sizes whose weights to begin with."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
)
# fmt: on


def _train_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_TRAIN_OPTIONS):
        command = option(command)
    return command


@train.command()
@_train_options
def autoencoder(**options: Any) -> int:
    """Train a 3D video autoencoder."""
    return _train("autoencoder", options)


@train.command()
@_train_options
@click.option(
    "--autoencoder",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The trained autoencoder, instead of the config's.",
)
def diffusion(**options: Any) -> int:
    """Train a denoiser on the latents of a trained autoencoder."""
    return _train("diffusion", options)


def _train(kind: str, options: Mapping[str, Any]) -> int:
    from lvdm_tools.train import config, start

    run = config.load(config.find(options["config"]), kind)
    overrides = {name: options.get(name) for name in ("steps", "autoencoder", "start_from")}
    run = start.with_overrides(run, **overrides)
    stop, report = threading.Event(), _silent if options["quiet"] else _Progress()
    _stop_on_signals(stop)
    request = start.Request(run, options["data"], options["out"], report, options["resume"], stop)
    try:
        reached = start.start(request)
    except KeyboardInterrupt:
        if not (options["out"] / "config.json").exists():
            raise
        return _interrupted("interrupted; what is finished is kept", options)
    return _conclude(run, reached, options)


def _conclude(run: Run, reached: int | None, options: Mapping[str, Any]) -> int:
    if reached is None:
        return 0
    if reached < run.steps:
        return _interrupted(f"interrupted after step {reached} of {run.steps}", options)
    click.echo(f"{options['out'] / 'model'}: {run.name}, {reached} steps")
    return 0


def _interrupted(what: str, options: Mapping[str, Any]) -> int:
    resume = [] if options["resume"] else ["--resume"]
    command = shlex.join(["lvdm-tools", *sys.argv[1:], *resume])
    _SHELL.say(f"{what}; go on with: {command}")
    return 130


def _stop_on_signals(stop: threading.Event) -> None:
    """Let the first signal end the run after its step, and a second one at once."""

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        _SHELL.say(
            f"{signal.Signals(number).name}: finishing what is begun and saving; once more: at once"
        )

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handle)
        signal.signal(signal.SIGTERM, handle)


def _silent(_: Mapping[str, Any]) -> None:
    """Report nothing."""


class _Progress:
    """One line per log interval, with the time that is left."""

    def __init__(self) -> None:
        self._started: dict[str, tuple[float, int]] = {}

    def __call__(self, record: Mapping[str, Any]) -> None:
        phase, step, of = record.get("phase", "step"), record["step"], record["of"]
        parts = [f"{phase} {step}/{of}"]
        parts += [f"{k} {v:.4g}" for k, v in record.items() if k not in {"phase", "step", "of"}]
        began, first = self._started.setdefault(phase, (time.monotonic(), step))
        if first < step < of:
            left = (time.monotonic() - began) / (step - first) * (of - step)
            parts.append(f"{left / 60:.0f} min left")
        click.echo("  ".join(parts), err=True)


_SHELL = CommandLine(lvdm_tools, "tools", "lower the batch, or the size and length of clips")
main, run = _SHELL.main, _SHELL.run
