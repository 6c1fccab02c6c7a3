"""`lvdm-export`: the command line over `build`, `verify` and `inspect`.

Heavy modules are imported by the command that needs them, so that signals are caught early.
"""

import json
import logging
import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from lvdm_engines.backends.backend import BACKENDS, CPU_PRECISIONS, CpuPrecision, SessionOptions
from lvdm_engines.backends.plan_facts import PlanOptions
from lvdm_engines.bundle import Bundle, load_bundle
from lvdm_engines.command_line import HELP, CommandLine, tell
from lvdm_engines.completion import BUNDLE, PATH
from lvdm_engines.errors import ExportError
from lvdm_engines.manifest import TAUGHT, ModelFacts
from lvdm_engines.ranges import WholeRange
from lvdm_export.flags import RUN_AS_THEY_ARE, build_flags

Report = Callable[[str], None]

_FILE = click.Path(path_type=Path)


@click.group(context_settings=HELP)
@click.version_option(package_name="lvdm-rt")
def lvdm_export() -> None:
    """Turn trained checkpoints into verified bundles for lvdm-rt."""
    # The exporter misses torchvision, we do not; torch resets the loggers above this one.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


@lvdm_export.command("build-engines")
@build_flags
def build_engines(**options: Any) -> None:
    """Export checkpoints to ONNX, check every graph against torch, and write a bundle.

    CFG is one of the authors' YAML files, CKPT their weights (.ckpt, .safetensors, an index of
    shards or a folder); or a model.json and the model.safetensors beside it. With --backend
    tensorrt or tensorrt-rtx the graphs are compiled for this machine as well.
    """
    from lvdm_engines.backends.trt.build import check_build, check_refit
    from lvdm_export.compilation import compile_bundle, refit_bundle

    pairs = _denoisers(options)
    report = _silent if options["quiet"] else tell
    wanted = _plan_options(options)
    if options["bundle"]:
        bundle = load_bundle(options["bundle"])
    else:
        if options["refit_from"]:
            former = load_bundle(options["refit_from"])
            graphs = [*pairs, "encoder", "decoder", *(["text_encoder"] if options["text"] else [])]
            check_refit(former, options["backend"], wanted, options["precision"], graphs)
        else:
            check_build(options["backend"], wanted)
        bundle = _export(options, pairs, report)
        click.echo(f"{bundle.path}: {', '.join(bundle.manifest.graphs)} exported and verified")
    if options["refit_from"]:
        lines = refit_bundle(bundle, load_bundle(options["refit_from"]), options["backend"], wanted)
    else:
        lines = compile_bundle(bundle, options["backend"], wanted, report, force=options["force"])
    for line in lines:
        click.echo(line)
    report(f"next: {_next(bundle.manifest.model, _as_argument(options))}")


def _next(model: ModelFacts, bundle: str) -> str:
    """Return the command to run with a bundle that was made."""
    if model.predict is None and model.short is None:
        return f"lvdm-rt info {bundle}; to generate it needs a network for predict or short as well"
    prompt = "" if model.context is None else "--prompt 'clouds over a lake' "
    return f"lvdm-rt generate --bundle {bundle} {_longest_clip(model)}{prompt}-o out.mp4"


def _longest_clip(model: ModelFacts) -> str:
    """Return the option that asks a model for all it can make where that is one clip."""
    if model.predict or model.short is None:
        return ""
    return f"--frames {model.short.clip * model.frames_per_latent} "


def _as_argument(options: dict[str, Any]) -> str:
    """Return the bundle that was made as other commands take it: a bare name is a built-in one."""
    out = options["out"]
    if out is None:
        return shlex.quote(options["bundle"])
    return shlex.quote(str(out) if out.is_absolute() else f"./{out}")


def _denoisers(options: dict[str, Any]) -> dict[str, Any]:
    """Return the pairs of files by graph name, once the options make sense together."""
    pairs = {name: options[name] for name in (*TAUGHT, "text", "distilled")}
    given = {name: pair for name, pair in pairs.items() if pair}
    if options["refit_from"] and options["backend"] in RUN_AS_THEY_ARE:
        raise click.UsageError("--refit-from needs --backend tensorrt or tensorrt-rtx")
    if options["bundle"]:
        named = ("out", "autoencoder", "text_encoder", "tokenizer")
        if given or any(options[name] for name in named):
            raise click.UsageError(
                "--bundle compiles what is there; leave checkpoints and --out out"
            )
        if options["backend"] in RUN_AS_THEY_ARE:
            raise click.UsageError("--bundle needs --backend tensorrt or tensorrt-rtx")
        return {}
    if not given.keys() - {"distilled"}:
        raise click.UsageError("give at least one of --predict, --interpolate, --short, --text")
    if not options["out"]:
        raise click.UsageError("give the directory to write with --out")
    if "text" in given and "short" in given:
        raise click.UsageError("--text and --short both give the graph `short`; use one of them")
    return {"short" if name == "text" else name: pair for name, pair in given.items()}


def _plan_options(options: dict[str, Any]) -> PlanOptions:
    """Return what a compiler may be asked; what was not given keeps its default."""
    known = {name: options.get(name) for name in PlanOptions.__struct_fields__}
    asked = {name: value for name, value in known.items() if value is not None}
    return PlanOptions(**asked)


def _export(options: dict[str, Any], pairs: dict[str, Any], report: Report) -> Bundle:
    from lvdm_export.build import build
    from lvdm_export.inputs import BuildOptions, Source

    named = {field.name for field in fields(BuildOptions)} & options.keys()
    sources = {name: Source(*pair) for name, pair in pairs.items()}
    asked = (
        "sampler",
        "steps",
        "guidance",
        "text_guidance",
        "eta",
        "refine",
        "noise_level",
        "overlap",
    )
    sampling = {name: options[name] for name in asked}
    same = {name: options[name] for name in named}
    return build(BuildOptions(denoisers=sources, sampling=sampling, **same), report)


@lvdm_export.command()
@click.argument("bundle", shell_complete=BUNDLE)
@click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(CPU_PRECISIONS), help="Of the CPU's arithmetic.")
@click.option(
    "--reference",
    metavar="BUNDLE",
    shell_complete=BUNDLE,
    help="The fp32 export that --backend is held to.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def verify(
    bundle: str,
    backend: str,
    precision: CpuPrecision | None,
    reference: str | None,
    **flags: bool,
) -> int:
    """Run a bundle's graphs again and compare them with what torch gave when it was made.

    A backend other than cpu is compared with the CPU instead, at more batch sizes, in decoded
    pixels and on growing inputs, within the errors of half precision, TF32 or bf16. For an fp16
    bundle give the fp32 export of the same checkpoints as --reference: without it, the CPU computes
    with the weights that were rounded already, and the numbers say so.
    """
    from lvdm_export.verify.backends import check_report, compare_bundle
    from lvdm_export.verify.parity import verify_bundle

    told = _silent if flags["quiet"] else tell
    if backend == "cpu" and reference is not None:
        raise click.UsageError(
            "--reference is for another --backend: cpu is held to torch's answers"
        )
    if backend == "cpu" and precision == "bf16":
        raise click.UsageError("--precision bf16 is for --backend openvino: cpu computes in f32")
    opened = load_bundle(bundle)
    if backend == "cpu":
        report = verify_bundle(opened, told)
    else:
        held_to = None if reference is None else load_bundle(reference)
        options = SessionOptions(precision=precision)
        report = compare_bundle(opened, backend, told, held_to, options)
    if flags["as_json"]:
        click.echo(json.dumps(report, indent=1))
    else:
        for name, entry in report.items():
            told_of = (f"{k} {_short(v)}" for k, v in entry.items() if k != "problems")
            verdict = "; ".join(entry.get("problems", [])) or "ok"
            click.echo(", ".join([f"{name}: {verdict}", *told_of]))
    if backend != "cpu":
        try:
            check_report(report, opened, backend)
        except ExportError as err:
            if not flags["as_json"]:
                raise
            _SHELL.say(err)  # the object on stdout has the problems, and stays the only one
            return 1
    return 0


@lvdm_export.command()
@click.argument("bundle", shell_complete=BUNDLE)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def inspect(bundle: str, as_json: bool) -> None:
    """Show what a bundle holds on one screen; --json adds tensors, sha256 and all numbers."""
    from lvdm_export.inspection import describe, facts

    click.echo(json.dumps(facts(bundle), indent=1) if as_json else describe(bundle))


@lvdm_export.command("make-tokenizer")
@click.argument("merges", type=_FILE, metavar="MERGES", shell_complete=PATH)
@click.option("--out", type=_FILE, required=True, metavar="FILE", help="What to write.")
@click.option(
    "--tokens",
    type=WholeRange(3, 4096),
    default=77,
    show_default=True,
    help="Of a prompt, with start and end.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def make_tokenizer(merges: Path, out: Path, tokens: int, *, force: bool) -> None:
    """Make CLIP's tokenizer.json from its public list of merges, bpe_simple_vocab_16e6.txt.gz."""
    from lvdm_export.text.tokenizer import clip_tokenizer, write_tokenizer

    write_tokenizer(out, clip_tokenizer(merges, tokens), force=force)
    click.echo(f"{out}: prompts of {tokens} tokens; give it to build-engines with --tokenizer")


def _silent(_line: str) -> None:
    return


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


_SHELL = CommandLine(lvdm_export, "export", "close other programs or export on a larger machine")
main, run = _SHELL.main, _SHELL.run


if __name__ == "__main__":
    main()
