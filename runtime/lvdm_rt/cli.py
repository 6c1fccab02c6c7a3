"""The `lvdm-rt` command: flags, progress, messages and exit codes around one library call.

Exit codes: 0 done · 1 an error that one line explains · 2 usage · 130 interrupted.
Heavy modules are imported by the command that needs them: `--help` answers at once.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.backends.backend import BACKENDS
from lvdm_engines.command_line import HELP, CommandLine, silence_stdout
from lvdm_engines.errors import DeviceMemoryError, LvdmError, SessionError, VideoError, WorkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tqdm import tqdm

    from lvdm_rt.commands.generate import GenerateJob, Result
    from lvdm_rt.pipeline import Progress


@click.group(context_settings=HELP)
@click.version_option(package_name="lvdm-rt")
def lvdm_rt() -> None:
    """Generate long videos with latent video diffusion models, without PyTorch."""


@lvdm_rt.command()
@click.option(
    "-o",
    "out",
    required=True,
    metavar="OUT",
    help=".mp4, .webm, .gif, .npz, a directory of PNG frames, or - for y4m on standard output.",
)
@click.option("--bundle", default="sky-tiny", show_default=True, help="Built-in name or directory.")
@click.option("--frames", type=click.IntRange(1), default=64, show_default=True, metavar="N")
@click.option(
    "--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, metavar="S"
)
@click.option(
    "--videos",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="With N > 1: OUT-000.mp4, OUT-001.mp4, …",
)
@click.option("--mode", type=click.Choice(["hierarchical", "autoregressive", "short"]))
@click.option("--preset", metavar="fast|balanced|paper", help="Sampler and steps by name.")
@click.option("--sampler", type=click.Choice(["ddpm", "ddim", "dpmpp_2m"]))
@click.option("--steps", type=click.IntRange(1), metavar="N")
@click.option("--eta", type=float, metavar="E", help="Noise of ddim: 0 none, 1 as much as ddpm.")
@click.option("--guidance", type=float, metavar="W", help="Away from unconditional; 0 is off.")
@click.option(
    "--noise-level", type=int, metavar="S", help="Perturbation of the condition; -1 none."
)
@click.option(
    "--condition", metavar="IN.mp4", help="Continue this video; OUT holds what follows it."
)
@click.option(
    "--fade",
    type=click.IntRange(0),
    metavar="N",
    help="New frames in which the look of IN's last one fades out. Default: a decode window.",
)
@click.option("--prompt", metavar="TEXT", help="For bundles with a text encoder.")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Clips per network call.")
@click.option(
    "--backend", type=click.Choice(["auto", *BACKENDS]), default="auto", show_default=True
)
@click.option(
    "--fps", type=float, metavar="F", help="Playback rate of OUT; the model's if not given."
)
@click.option("--exact", is_flag=True, help="Bit-identical results for any grouping of clips.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run of the same settings.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object about the result.")
@click.option("-q", "quiet", is_flag=True, help="No progress and no summary.")
def generate(**flags: Any) -> int:
    """Generate videos.

    OUT appears when it is whole, with its settings in OUT.json. Until then finished clips are
    kept in a hidden directory beside it, for --resume.
    """
    quiet = flags["quiet"]
    started = time.monotonic()
    try:
        _refuse_contradictions(flags)
        job = _job(flags)
        result = _generate(job, show=not quiet and sys.stderr.isatty())
    except KeyboardInterrupt:
        nothing = "what was piped is cut off" if flags["out"] == "-" else "nothing was finished yet"
        _SHELL.say(f"interrupted; {_how_to_resume(flags['out']) or nothing}")
        return 130
    except LvdmError as err:
        hint = _how_to_resume(flags["out"]) if _may_pass(err, flags["resume"]) else None
        _SHELL.say(f"{err}; {hint}" if hint else str(err))
        if flags["out"] == "-":
            silence_stdout()
        return 1
    seconds = time.monotonic() - started
    if flags["as_json"]:
        print(json.dumps(_summary(job, result, seconds)))
    elif not quiet:
        _SHELL.say(f"wrote {_named(result)} in {seconds:.1f} s on {result.backend}")
    return 0


@lvdm_rt.command()
@click.argument("bundle", default="sky-tiny")
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def info(bundle: str, as_json: bool) -> None:
    """Verify a bundle and show what it is. BUNDLE is a built-in name or a directory."""
    from lvdm_engines.bundle import MANIFEST, load_bundle
    from lvdm_rt.commands.text import bundle_lines

    found = load_bundle(bundle)
    for graph in found.manifest.graphs:
        found.graph(graph).verified()
    if as_json:
        print((found.path / MANIFEST).read_text("utf-8").rstrip())
    else:
        print("\n".join(bundle_lines(found)))


@lvdm_rt.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> int:
    """Show which backends, formats and bundles work here, and what would fix the others."""
    import msgspec

    from lvdm_rt.commands.doctor import diagnose
    from lvdm_rt.commands.text import diagnosis_lines

    found = diagnose()
    print(msgspec.json.encode(found).decode() if as_json else "\n".join(diagnosis_lines(found)))
    return 0 if found.healthy else 1


def _refuse_contradictions(flags: dict[str, Any]) -> None:
    """Raise click.UsageError for flags that exclude each other whatever the bundle is."""
    to_stdout = flags["out"] == "-"
    if flags["eta"] is not None and flags["sampler"] in ("ddpm", "dpmpp_2m"):
        raise click.UsageError(f"--eta belongs to ddim, not to --sampler {flags['sampler']}")
    if flags["fade"] is not None and flags["condition"] is None:
        raise click.UsageError("--fade belongs to --condition, which was not given")
    if to_stdout and flags["as_json"]:
        raise click.UsageError("--json prints on standard output, where -o - puts the video")
    if to_stdout and flags["resume"]:
        raise click.UsageError("-o - keeps nothing to --resume; give a file name")
    if to_stdout and flags["videos"] > 1:
        raise click.UsageError("-o - takes one video, not --videos; give a file name")
    if to_stdout and sys.stdout.isatty():
        raise click.UsageError("-o - would put a video on the terminal; pipe it into a program")
    from lvdm_rt.video.spec import output_kind

    try:
        output_kind(flags["out"])
    except LvdmError as err:
        raise click.UsageError(str(err)) from err


def _job(flags: dict[str, Any]) -> GenerateJob:
    from pathlib import Path

    from lvdm_rt.commands.generate import GenerateJob
    from lvdm_rt.options import GenerateOptions

    condition = flags["condition"]
    asked = {n: flags[n] for n in GenerateOptions.__struct_fields__ if n in flags}
    return GenerateJob(
        out=flags["out"],
        options=GenerateOptions(**asked),
        bundle=flags["bundle"],
        backend=flags["backend"],
        condition=None if condition is None else Path(condition),
        prompt=flags["prompt"],
        resume=flags["resume"],
    )


def _generate(job: GenerateJob, *, show: bool) -> Result:
    from lvdm_rt.commands.generate import generate

    if not show:
        return generate(job)
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its watchdog thread is for bars that are rarely updated
    with tqdm(unit="step", file=sys.stderr, dynamic_ncols=True, leave=False) as bar:
        return generate(job, _drawing_on(bar))


def _drawing_on(bar: tqdm[Any]) -> Callable[[Progress], None]:
    def draw(done: Progress) -> None:
        bar.total = done.total_steps
        bar.set_postfix_str(f"{done.frames}/{done.total_frames} frames", refresh=False)
        bar.update(done.steps - bar.n)

    return draw


def _summary(job: GenerateJob, result: Result, seconds: float) -> dict[str, Any]:
    frames = job.options.frames * job.options.videos
    return {
        "outputs": list(result.outputs),
        "backend": result.backend,
        "settings": result.settings,
        "seconds": round(seconds, 3),
        "frames_per_second": round(frames / seconds, 3),
    }


def _named(result: Result) -> str:
    first, last = result.outputs[0], result.outputs[-1]
    return first if first == last else f"{first} … {last}"


def _may_pass(err: LvdmError, resuming: bool) -> bool:
    """Tell whether the same run could succeed later: errors of the disk, the engines, a restart."""
    if isinstance(err, DeviceMemoryError):
        return False  # it says what to lower, and that makes it another run
    return isinstance(err, VideoError | SessionError) or (
        isinstance(err, WorkError) and not resuming
    )


def _how_to_resume(out: str) -> str | None:
    from lvdm_rt.long.workdir import holds_clips, work_path

    if not holds_clips(work_path(out)):
        return None
    arguments = [*sys.argv[1:], *([] if "--resume" in sys.argv else ["--resume"])]
    return f"finished clips are kept, continue with: {shlex.join(['lvdm-rt', *arguments])}"


_SHELL = CommandLine(lvdm_rt, None, "lower --batch-size")
main, run = _SHELL.main, _SHELL.run
