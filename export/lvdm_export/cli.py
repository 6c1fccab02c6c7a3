"""`lvdm-export`: the command line over `build`, `verify` and `inspect`."""

import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from lvdm_engines.errors import LvdmError, MissingExtraError, OptionsError

_EXTRA = {"torch", "onnx", "onnxscript", "yaml", "safetensors"}
_PAIR: Any = (click.Path(path_type=Path), click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lvdm-rt")
def commands() -> None:
    """Turn trained checkpoints into verified bundles for lvdm-rt."""


@commands.command("build-engines")
@click.option("--predict", nargs=2, type=_PAIR, metavar="CFG CKPT", help="Keyframe predictor.")
@click.option("--interpolate", nargs=2, type=_PAIR, metavar="CFG CKPT", help="Infill network.")
@click.option("--short", nargs=2, type=_PAIR, metavar="CFG CKPT", help="Single clips.")
@click.option(
    "--text", nargs=2, type=_PAIR, metavar="CFG CKPT", help="Text-to-video denoiser, as `short`."
)
@click.option(
    "--autoencoder",
    type=click.Path(path_type=Path),
    metavar="CKPT",
    help="Default: the one inside the first denoiser's checkpoint.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="BUNDLE")
@click.option(
    "--backend",
    type=click.Choice(["cpu", "cuda", "tensorrt", "tensorrt-rtx"]),
    default="cpu",
    show_default=True,
    help="Also compile for this one; cpu and cuda run the ONNX files as they are.",
)
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option("--batch", metavar="MIN:OPT:MAX", default="1:2:8", show_default=True)
@click.option("--ema/--no-ema", default=True, help="Averaged or plain weights. Default: averaged.")
@click.option("--name", help="Default: the name of the directory.")
@click.option("--fps", type=click.FloatRange(0, min_open=True), default=8.0, show_default=True)
@click.option(
    "--decode-window", type=click.IntRange(1), metavar="LATENTS", help="Default: 16 frames' worth."
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def build_engines(**options: Any) -> None:
    """Export checkpoints to ONNX, check every graph against torch, and write a bundle.

    CFG is one of the authors' YAML files with a Lightning .ckpt as CKPT, or a model.json with the
    model.safetensors beside it.
    """
    from lvdm_export.build import BuildOptions, Source, build

    text = options["text"]
    if text and options["short"]:
        raise click.UsageError("--text and --short both give the graph `short`; use one of them")
    pairs = {name: options[name] for name in ("predict", "interpolate", "short")}
    pairs["short"] = pairs["short"] or text
    sources = {name: Source(*pair) for name, pair in pairs.items() if pair}
    if not sources:
        raise click.UsageError("give at least one of --predict, --interpolate, --short, --text")
    report = _silent if options["quiet"] else _progress
    bundle = build(
        BuildOptions(
            denoisers=sources,
            out=options["out"],
            autoencoder=options["autoencoder"],
            name=options["name"],
            precision=options["precision"],
            ema=options["ema"],
            force=options["force"],
            fps=options["fps"],
            decode_window=options["decode_window"],
        ),
        report,
    )
    click.echo(f"{bundle.path}: {', '.join(bundle.manifest.graphs)} exported and verified")


@commands.command()
@click.argument("bundle")
@click.option("--backend", default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def verify(bundle: str, backend: str, as_json: bool, quiet: bool) -> None:
    """Run a bundle's graphs again and compare them with what torch gave when it was made."""
    from lvdm_export.verify import verify_bundle

    report = verify_bundle(bundle, backend, _silent if quiet else _progress)
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    for name, entry in report.items():
        click.echo(f"{name}: ok, " + ", ".join(f"{k} {_short(v)}" for k, v in entry.items()))


@commands.command()
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def inspect(bundle: str, as_json: bool) -> None:
    """Show a bundle's graphs: tensors, parameters, GFLOP per run, sha256 and parity."""
    from lvdm_export.inspection import describe, facts

    click.echo(json.dumps(facts(bundle), indent=1) if as_json else describe(bundle))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line: exit 0, 1 for an LvdmError, 2 for usage, 130 when interrupted."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # The exporter misses torchvision, we do not; torch resets the loggers above this one.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, _interrupt)  # so that a killed export cleans up as well
    try:
        commands.main(args=arguments, standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as err:
        err.show()
        sys.exit(err.exit_code)
    except ModuleNotFoundError as err:
        _fail(_missing(err))
    except LvdmError as err:
        _fail(err)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; nothing was left behind", err=True)
        sys.exit(130)
    except MemoryError:
        _fail(OptionsError("out of memory; close other programs or export on a larger machine"))
    sys.exit(0)


def _fail(err: LvdmError) -> NoReturn:
    click.echo(f"error: {' '.join(str(err).split())}", err=True)
    sys.exit(1)


def _missing(err: ModuleNotFoundError) -> LvdmError:
    name = (err.name or "").split(".")[0]
    if name not in _EXTRA:
        raise err
    return MissingExtraError(
        f"lvdm-export needs {name}, which is not installed: pip install 'lvdm-rt[export]'"
    )


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _silent(_line: str) -> None:
    return


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
