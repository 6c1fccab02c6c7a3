"""The command line of `lvdm-tools`: the only module here that prints and exits."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.errors import LvdmError

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def lvdm_tools() -> None:
    """Train, evaluate and feed latent video diffusion models."""


@lvdm_tools.group()
def train() -> None:
    """Train an autoencoder or a denoiser."""


_TRAIN_OPTIONS = (
    click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path),
        required=True,
        help="YAML file, or the name of a ready config.",
    ),
    click.option("--data", required=True, help="'synth' or a folder of videos."),
    click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder."),
    click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out."),
    click.option("--steps", type=int, help="Train for this many steps instead of the config's."),
)


def _train_options(command: Any) -> Any:
    for option in reversed(_TRAIN_OPTIONS):
        command = option(command)
    return command


@train.command()
@_train_options
def autoencoder(**options: Any) -> None:
    """Train a 3D video autoencoder."""
    _train("autoencoder", **options)


@train.command()
@_train_options
@click.option("--autoencoder", type=click.Path(path_type=Path),
              help="The trained autoencoder's folder, instead of the config's.")  # fmt: skip
def diffusion(autoencoder: Path | None, **options: Any) -> None:
    """Train a denoiser on the latents of a trained autoencoder."""
    _train("diffusion", autoencoder=autoencoder, **options)


def _train(
    kind: str,
    *,
    config: Path,
    data: str,
    out: Path,
    resume: bool,
    steps: int | None,
    autoencoder: Path | None = None,
) -> None:
    from lvdm_tools.train import config as configs
    from lvdm_tools.train import start

    run = start.with_overrides(
        configs.load(_find_config(config), kind), steps=steps, autoencoder=autoencoder
    )
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    reached = start.start(start.Request(run, data, out, _Progress(), resume, stop))
    if reached < run.steps:
        click.echo(f"stopped at step {reached} of {run.steps}; go on with --resume", err=True)
        sys.exit(130)
    click.echo(f"{out / 'model'}: {run.name}, {reached} steps")


def _find_config(config: Path) -> Path:
    ready = Path(__file__).parent / "configs" / f"{config.name}.yaml"
    return ready if not config.suffix and not config.exists() and ready.exists() else config


class _Progress:
    """One line per log interval on stderr."""

    def __call__(self, record: Mapping[str, Any]) -> None:
        head = f"{record.get('phase', 'step')} {record['step']}/{record['of']}"
        numbers = [
            f"{name} {value:.4g}"
            for name, value in record.items()
            if name not in {"phase", "step", "of"}
        ]
        click.echo("  ".join([head, *numbers]), err=True)


def main() -> None:
    """Run the command line; errors are one line on stderr and exit code 1."""
    try:
        lvdm_tools(standalone_mode=True)
    except LvdmError as err:
        click.echo(f"error: {err}", err=True)
        sys.exit(1)
