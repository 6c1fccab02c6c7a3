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
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.command_line import HELP, CommandLine, tell
from lvdm_engines.completion import DATA, offer
from lvdm_engines.errors import one_line
from lvdm_engines.ranges import WholeRange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lvdm_tools.train.config import Run


class _Elsewhere(click.Command):
    """The command of another module, imported when it is run, completed or asked for help."""

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name, short_help=summary)
        self._module = module

    def make_context(self, *args: Any, **settings: Any) -> click.Context:
        """Hand over to the command itself, which the context then names."""
        command: click.Command = import_module(self._module).command
        return command.make_context(*args, **settings)


@click.group(context_settings=HELP)
@click.version_option(package_name="lvdm-rt")
def lvdm_tools() -> None:
    """Train and measure latent video diffusion models, and make data for them."""
    logging.getLogger("lvdm_tools").setLevel(logging.INFO)


for _name, _module, _summary in (
    ("synth", "lvdm_tools.data.command", "Write a procedural sky time-lapse as videos."),
    ("eval", "lvdm_tools.quality.command", "Measure a bundle, or compare sets of videos."),
    ("experiment", "lvdm_tools.quality.experiment_command", "Run the paper's experiment."),
    ("convert-i3d", "lvdm_tools.quality.convert_i3d", "Convert the network of FVD to ONNX."),
    ("bench", "lvdm_tools.bench.command", "Measure how fast a bundle runs here, beside torch."),
    ("gpu-check", "lvdm_tools.bench.gpu_command", "Measure backends on this machine's GPU."),
):
    lvdm_tools.add_command(_Elsewhere(_name, _module, _summary))


@lvdm_tools.group()
def data() -> None:
    """Make published data sets folders that can be trained on."""


data.add_command(
    _Elsewhere("prepare", "lvdm_tools.data.prepare_command", "Prepare a data set that is here.")
)


@lvdm_tools.group()
def train() -> None:
    """Train an autoencoder, then a denoiser on its latents."""


def _ready() -> Iterable[str]:
    return sorted(file.stem for file in (Path(__file__).parent / "configs").glob("*.yaml"))


_FILE = click.Path(path_type=Path)
# fmt: off
_OPTIONS = [
    click.Option(["--config"], required=True, metavar="C.yaml",
                 shell_complete=offer(_ready, "file"),
                 help="A YAML file, or the name of a ready config."),
    click.Option(["--data"], required=True, metavar="DIR|synth", shell_complete=DATA,
                 help="A folder of videos or of folders of pictures, or the synthetic sky."),
    click.Option(["--out"], type=_FILE, required=True, metavar="RUN", help="The run's folder."),
    click.Option(["--resume"], is_flag=True, help="Go on from the last checkpoint in RUN."),
    click.Option(["--steps"], type=WholeRange(min=1),
                 help="Length of the whole run, instead of the config's."),
    click.Option(["--start-from"], type=_FILE, metavar="RUN",
                 help="A run of the same sizes whose weights to begin with."),
    click.Option(["-q", "--quiet"], is_flag=True, help="No progress on stderr."),
]
_AUTOENCODER = click.Option(["--autoencoder"], type=_FILE, metavar="RUN",
                            help="The trained autoencoder, instead of the config's.")
# fmt: on


@train.command(params=[*_OPTIONS])
def autoencoder(**options: Any) -> int:
    """Train a 3D video autoencoder."""
    return _train("autoencoder", options)


@train.command(params=[*_OPTIONS, _AUTOENCODER])
def diffusion(**options: Any) -> int:
    """Train a denoiser on the latents of a trained autoencoder."""
    return _train("diffusion", options)


@train.command(params=[*_OPTIONS, _AUTOENCODER])
def distill(**options: Any) -> int:
    """Train a denoiser to do in few calls what another does in many."""
    return _train("distill", options)


def _train(kind: str, options: Mapping[str, Any]) -> int:
    from lvdm_tools.train import config, start

    run = config.load(config.find(options["config"]), kind)
    overrides = {name: options.get(name) for name in ("steps", "autoencoder", "start_from")}
    run = start.with_overrides(run, **overrides)
    stop, report = threading.Event(), _silent if options["quiet"] else _ProgressLines()
    _stop_on_signals(stop)
    asked = {name: options[name] for name in ("data", "out", "resume")}
    request = start.TrainingRequest(run, report=report, stop=stop, **asked)
    try:
        reached = start.run_training(request)
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
    click.echo(f"{options['out'] / 'model'}: {one_line(run.name)}, {reached} steps")
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


class _ProgressLines:
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
        tell("  ".join(parts))


_SHELL = CommandLine(lvdm_tools, "tools", "lower the batch, or the size and length of clips")
main, run = _SHELL.main, _SHELL.run
