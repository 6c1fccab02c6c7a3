"""The `lvdm-rt` command: progress, messages and exit codes around one library call.

Exit codes: 0 done · 1 an error that one line explains · 2 usage · 130 interrupted.
Heavy modules are imported by the command that needs them: `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.command_line import HELP, CommandLine, log_as_events, silence_stdout
from lvdm_engines.completion import BUNDLE
from lvdm_engines.errors import KEPT, BackendError, LvdmError
from lvdm_rt.commands.flags import generate_flags, job_of, settled
from lvdm_rt.commands.viewing import compare_flags, sheet_flags
from lvdm_rt.commands.voice import listen, style_of, typed
from lvdm_rt.scale.cli import batch
from lvdm_rt.scale.flags import cluster_of, ray_flags
from lvdm_rt.serve.flags import serve_flags

if TYPE_CHECKING:
    from lvdm_rt.commands.job import GenerateJob, Result
    from lvdm_rt.scale.cluster import ClusterOptions


@click.group(context_settings=HELP)
@click.version_option(package_name="lvdm-rt")
def lvdm_rt() -> None:
    """Generate long videos with latent video diffusion models, without PyTorch."""


@lvdm_rt.command()
@generate_flags
@ray_flags
def generate(**flags: Any) -> int:
    """Generate videos.

    OUT appears when it is whole, with its settings in OUT.json. Until then finished clips are
    kept in a hidden directory beside it, for --resume.
    """
    listen(flags["verbose"], quiet=flags["quiet"])
    if flags["progress"] == "json":
        log_as_events()
    started = time.monotonic()
    try:
        flags = settled(flags, typed())
        job = job_of(flags)
        result = _generate(job, style_of(flags), cluster_of(flags))
    except (KeyboardInterrupt, LvdmError, OSError, MemoryError) as err:
        if hint := _hint(err, flags["out"]):
            err.add_note(hint)
        if flags["out"] == "-":
            silence_stdout()
        raise
    summary = _summary(job, result, time.monotonic() - started)
    if flags["progress"] == "json":
        _event("done", **summary)
    if flags["as_json"]:
        print(json.dumps(summary))
    elif not flags["quiet"] and flags["progress"] != "json":
        _SHELL.say(f"wrote {_named(result)} in {summary['seconds']:.1f} s on {result.backend}")
    return 0


@lvdm_rt.command()
@click.argument("bundle", default="sky-tiny", shell_complete=BUNDLE)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def info(bundle: str, as_json: bool) -> None:
    """Verify a bundle and show what it is.

    BUNDLE is a built-in name, a directory, or hf://OWNER/NAME.
    """
    from lvdm_engines.bundle import MANIFEST, load_bundle
    from lvdm_rt.commands.shown import bundle_lines

    opened = load_bundle(bundle)
    for graph in opened.manifest.graphs:
        opened.graph(graph).verified()
    if as_json:
        print(json.dumps(json.loads((opened.path / MANIFEST).read_bytes()), indent=1))
    else:
        print("\n".join(bundle_lines(opened)))


@lvdm_rt.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> int:
    """Show what works here, and what would fix the rest.

    Backends, formats and bundles.
    """
    import msgspec

    from lvdm_rt.commands.doctor import diagnose
    from lvdm_rt.commands.shown import diagnosis_lines

    findings = diagnose()
    lines = diagnosis_lines(findings)
    print(msgspec.json.encode(findings).decode() if as_json else "\n".join(lines))
    return 0 if findings.healthy else 1


@lvdm_rt.command()
@sheet_flags
def sheet(**flags: Any) -> None:
    """Show frames of videos in one picture.

    Each IN is a video, an .npz that `generate` wrote, a folder of pictures or a picture, and begins
    a row. Labels tell its name and which of its frames stand there, counted from 0.
    """
    from lvdm_rt.commands.sheet import SheetJob, make_sheet

    told = make_sheet(SheetJob(**flags))
    _SHELL.say(f"wrote {flags['out']}: {told}")


@lvdm_rt.command()
@compare_flags
def compare(**flags: Any) -> None:
    """Write videos side by side into one.

    It is as long as the shortest of them.

    Each IN is a video, an .npz that `generate` wrote or a folder of pictures.
    """
    from fractions import Fraction

    from lvdm_rt.commands.compare import CompareJob, compare

    fps = flags.pop("fps")
    rate = None if fps is None else Fraction(fps).limit_denominator(1000)
    try:
        told = compare(CompareJob(**flags, fps=rate))
    except (KeyboardInterrupt, LvdmError, OSError, MemoryError):
        if flags["out"] == "-":
            silence_stdout()
        raise
    _SHELL.say(f"wrote {flags['out']}: {told}")


lvdm_rt.add_command(batch)


@lvdm_rt.command()
@serve_flags
def serve(**flags: Any) -> None:
    """Make videos for whoever asks over HTTP, with a page.

    Prints its address when it is ready; ends with Ctrl-C or SIGTERM. What is in the folder is gone
    on with by the next server there.
    """
    from lvdm_rt.serve.flags import serve_job

    listen(flags["verbose"], quiet=flags["quiet"])
    try:
        from lvdm_rt.serve.server import serve
    except ModuleNotFoundError as err:
        raise _without_extra(err, "serve") from err
    with suppress(KeyboardInterrupt):
        serve(serve_job(flags), lambda url: print(url, flush=True))


def _without_extra(err: ModuleNotFoundError, extra: str) -> Exception:
    """Return the error that names the extra which brings a package, where that is what misses."""
    if err.name is None or err.name.startswith("lvdm_"):
        return err
    return BackendError(f"{err.name} is not installed; pip install 'lvdm-rt[{extra}]'")


def _generate(job: GenerateJob, style: str, cluster: ClusterOptions | None) -> Result:
    from lvdm_rt.commands.generate import generate
    from lvdm_rt.commands.telling import STYLES, telling

    if style == "json":
        _event("start", out=job.out, frames=job.options.frames, videos=job.videos)
    name = next(known for known in STYLES if known == style)
    with telling(name, sys.stderr, "lvdm-rt") as progress:
        if cluster is None:
            return generate(job, progress)
        from lvdm_rt.scale.remote import spread_pipeline

        return generate(job, progress, opening=partial(spread_pipeline, cluster=cluster))


def _event(name: str, **facts: Any) -> None:
    from lvdm_rt.commands.telling import event

    event(sys.stderr, name, **facts)


def _summary(job: GenerateJob, result: Result, seconds: float) -> dict[str, Any]:
    return {
        "outputs": list(result.outputs),
        "backend": result.backend,
        "settings": result.settings,
        "seconds": round(seconds, 3),
        "frames_per_second": round(job.frames / seconds, 3),
    }


def _named(result: Result) -> str:
    first, last = result.outputs[0], result.outputs[-1]
    return first if first == last else f"{first} … {last}"


def _hint(err: BaseException, out: str | None) -> str | None:
    """Return what to do with what is left of a run that ended so."""
    from lvdm_rt.long.workdir import holds_clips, work_path

    if KEPT in getattr(err, "__notes__", ()):
        return f"continue with: {_resumed()}"
    if not isinstance(err, KeyboardInterrupt):
        return None
    if out == "-":
        return "what was piped is cut off"
    there = out and (os.path.lexists(out) or holds_clips(work_path(out)))
    return "what was there is kept" if there else "nothing was finished yet"


def _resumed() -> str:
    """Return the command line of this process, but to go on."""
    arguments = [word for word in sys.argv[1:] if word != "--restart"]
    if "--resume" not in arguments:
        arguments.append("--resume")
    return shlex.join(["lvdm-rt", *arguments])


_SHELL = CommandLine(lvdm_rt, None, "lower --batch-size")
main, run = _SHELL.main, _SHELL.run
