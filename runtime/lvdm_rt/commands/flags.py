"""The flags of `generate`: what they are, which exclude each other, and the job they mean.

Knows click; imports nothing heavy before a flag needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.backends.backend import BACKENDS, CPU_PRECISIONS, MOST_THREADS
from lvdm_engines.completion import BUNDLE, PATH, offer
from lvdm_engines.errors import LvdmError, quoted
from lvdm_engines.ranges import NumberRange, WholeRange
from lvdm_rt.bounds import MAX_BATCH, MAX_FRAMES, MAX_SEED, MAX_VIDEOS
from lvdm_rt.commands.repeating import refuse_own_sidecar, repeated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lvdm_rt.commands.job import GenerateJob

_count = WholeRange(1)
_weight = NumberRange(0, 1000)
_AT = re.compile(r"\s*(\d{1,9})\s*:\s*(.*)", re.DOTALL)


def _presets() -> Iterable[str]:
    from lvdm_rt.presets import PRESETS

    return PRESETS


def _typed(text: str) -> str:
    """Return a text as it was typed: in a locale of ASCII its bytes are UTF-8 all the same."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text  # which is refused where prompts are checked


def _text(_: object, __: object, text: str | None) -> str | None:
    return None if text is None else _typed(text)


def _prompts(_: object, __: object, texts: tuple[str, ...]) -> list[tuple[int, str]] | None:
    """Return (first frame, text) of each prompt; one alone is text, whatever it begins with."""
    texts = tuple(map(_typed, texts))
    if len(texts) < 2:
        return [(0, text) for text in texts] or None
    told = [_AT.fullmatch(text) for text in texts]
    first = told[0]
    if first is not None and int(first[1]) != 0:
        raise click.BadParameter(
            f"{quoted(texts[0])} is the first prompt and begins at frame 0; leave its frame out"
        )
    prompts = [(0, texts[0] if first is None else first[2])]
    for text, at in zip(texts[1:], told[1:], strict=True):
        if at is None:
            raise click.BadParameter(
                f"{quoted(text)} says no frame; after the first prompt each is FRAME: TEXT"
            )
        prompts.append((int(at[1]), at[2]))
    return prompts


def _interval(_: object, __: object, text: str | None) -> tuple[int, int] | None:
    """Return the lowest and the highest timestep."""
    if text is None:
        return None
    numbers = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if numbers is None or int(numbers[1]) > int(numbers[2]):
        raise click.BadParameter(f"got {quoted(text)}, expected LOW:HIGH, as in 100:800")
    return int(numbers[1]), int(numbers[2])


# fmt: off
_FLAGS = (
    click.option("-o", "--out", metavar="OUT", shell_complete=PATH,
                 help=".mp4, .webm, .gif, .npz, a directory of PNG frames, or - for y4m on standard output."),  # noqa: E501
    click.option("--bundle", default="sky-tiny", show_default=True, metavar="B",
                 shell_complete=BUNDLE,
                 help="A built-in name, a directory, or hf://OWNER/NAME[@REVISION]."),
    click.option("--frames", type=WholeRange(1, MAX_FRAMES), default=64, show_default=True,
                 metavar="N", help="New frames of each video."),
    click.option("--seed", type=WholeRange(0, MAX_SEED), default=0, show_default=True,
                 metavar="S"),
    click.option("--videos", type=WholeRange(1, MAX_VIDEOS), default=1, show_default=True,
                 metavar="N", help="With N > 1: OUT-000.mp4, OUT-001.mp4, …"),
    click.option("--first-video", type=WholeRange(0, MAX_SEED - MAX_VIDEOS), default=0, metavar="K",
                 help="Number of the first video, where several runs share one seed."),
    click.option("--condition", metavar="IN", shell_complete=PATH,
                 help="Continue this video, folder of frames, .npz or still picture."),
    click.option("--max-pixels", type=_count, default=1 << 26, show_default=True, metavar="N",
                 help="Refuse IN if its pictures have more: they would take too much memory."),
    click.option("--join/--no-join", help="Put IN before the new frames, with its sound."),
    click.option("--fade", type=WholeRange(0, MAX_FRAMES), metavar="N",
                 help="New frames in which the look of IN's last one fades out. Default: a decode window."),  # noqa: E501
    click.option("--mode", type=click.Choice(["hierarchical", "autoregressive", "short"])),
    click.option("--preset", metavar="fast|balanced|paper", shell_complete=offer(_presets),
                 help="Sampler and steps by name."),
    click.option("--sampler", type=click.Choice(["ddpm", "ddim", "dpmpp_2m", "distilled"])),
    click.option("--steps", type=_count, metavar="N", help="Network calls per clip."),
    click.option("--eta", type=NumberRange(0, 1), metavar="E",
                 help="Noise of ddim: 0 none, 1 as much as ddpm."),
    click.option("--guidance", type=_weight, metavar="W",
                 help="Away from what would come without given frames; 0 is off."),
    click.option("--text-guidance", type=_weight, metavar="W",
                 help="Away from what would come without the prompt; 0 is off."),
    click.option("--guidance-interval", callback=_interval, metavar="LOW:HIGH",
                 help="Guide at these timesteps only."),
    click.option("--noise-level", type=WholeRange(-1), metavar="S",
                 help="Perturbation of the condition; -1 none."),
    click.option("--refine", type=WholeRange(0), metavar="N",
                 help="Network calls of a second pass over keyframes and their neighbours; 0 none."),  # noqa: E501
    click.option("--prompt", "prompts", multiple=True, callback=_prompts, metavar="TEXT",
                 help="What to show; again as FRAME: TEXT for what comes later."),
    click.option("--negative-prompt", callback=_text, metavar="TEXT",
                 help="What to guide away from."),
    click.option("--prompts", "listing", metavar="FILE", shell_complete=PATH,
                 help="A video for each line: a prompt, or JSON with prompt, seed, frames, out."),
    click.option("--batch-size", type=WholeRange(1, MAX_BATCH), metavar="N",
                 help="Clips per network call."),
    click.option("--overlap", type=WholeRange(0), metavar="N",
                 help="Latents that neighbouring decode windows share. Default: half a window."),
    click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto",
                 show_default=True),
    click.option("--threads", type=WholeRange(1, MOST_THREADS), metavar="N",
                 help="CPU threads. Default: all cores."),
    click.option("--precision", type=click.Choice(CPU_PRECISIONS),
                 help="Of the CPU's arithmetic. Default: bf16 where openvino runs and is quick at it."),  # noqa: E501
    click.option("--device", type=WholeRange(0), default=0, metavar="N", help="Which GPU."),
    click.option("--fps", type=NumberRange(0.1, 1000), metavar="F",
                 help="Playback rate of OUT; the model's if not given."),
    click.option("--crf", type=WholeRange(0, 63), metavar="N",
                 help="Quality of mp4 (16) and webm (20); less is better and larger."),
    click.option("--preview", metavar="FILE", shell_complete=PATH,
                 help="Keep a coarse picture (.png, .gif) of what is being sampled here."),
    click.option("--exact/--no-exact", help="Bit-identical results for any grouping of clips."),
    click.option("--from", "repeat", metavar="OUT.json", shell_complete=PATH,
                 help="Repeat the video that has this sidecar; other flags change it."),
    click.option("--resume", is_flag=True, help="Go on with an interrupted run."),
    click.option("--restart", is_flag=True, help="Throw away what an interrupted run left."),
    click.option("--force", is_flag=True, help="Replace OUT if it exists."),
    click.option("--json", "as_json", is_flag=True,
                 help="Print one JSON object about the result, or the error."),
    click.option("--progress", type=click.Choice(["auto", "bar", "lines", "json", "none"]),
                 default="auto", show_default=True,
                 help="On stderr; auto: a bar on a terminal, else lines."),
    click.option("-v", "--verbose", count=True, help="Say more on stderr; twice: much more."),
    click.option("-q", "--quiet", is_flag=True, help="No progress and no summary."),
)
# fmt: on


def generate_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all flags of `generate`."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def flags_but(*names: str) -> list[click.Parameter]:
    """Return the flags of `generate` but some, for another command."""
    own = click.command("generate")(generate_flags(lambda: None))
    return [flag for flag in own.params if flag.name not in names]


def settled(flags: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Return the flags with those of a repeated run filled in; `given` were typed.

    Raises OptionsError for a sidecar that is none, click.UsageError for contradictions.
    """
    if flags["repeat"] is not None:
        flags = {**flags, **repeated(flags, given)}
        if flags["join"] and "fps" not in given:
            flags["fps"] = None
        if flags["out"] and "crf" not in given and not _has_quality(flags["out"]):
            flags["crf"] = None
    for name in ("bundle", "condition", "preview"):
        if flags[name] == "":
            raise click.UsageError(f"--{name} got an empty name; give one, or leave the flag out")
    _refuse_contradictions(flags, given)
    if flags["repeat"] is not None and "first_video" not in given:
        refuse_own_sidecar(flags)
    return flags


def _refuse_contradictions(flags: dict[str, Any], given: set[str]) -> None:
    """Raise click.UsageError for flags that exclude each other whatever the bundle is."""
    if flags["listing"] is not None:
        _refuse_beside_list(flags, given)
    elif flags["out"] is None:
        raise click.UsageError("Missing option '-o' / '--out'.")
    if flags["eta"] is not None and flags["sampler"] not in (None, "ddim"):
        raise click.UsageError(f"--eta belongs to ddim, not to --sampler {flags['sampler']}")
    for name in ("fade", "join"):
        if flags[name] not in (None, False) and flags["condition"] is None:
            raise click.UsageError(f"--{name} belongs to --condition, which was not given")
    if flags["join"] and flags["fps"] is not None:
        raise click.UsageError(
            "--join keeps the pace of IN and so the model's rate; leave out --fps"
        )
    if flags["resume"] and flags["restart"]:
        raise click.UsageError("--resume goes on with what --restart throws away; choose one")
    if flags["out"] == "-":
        _refuse_on_stdout(flags)
    if flags["out"] is not None and not _has_quality(flags["out"]) and flags["crf"] is not None:
        raise click.UsageError("--crf belongs to .mp4 and .webm")


def _refuse_beside_list(flags: dict[str, Any], given: set[str]) -> None:
    for name in ("prompts", "videos", "first_video", "repeat"):
        if name in given:
            flag = {"prompts": "prompt", "repeat": "from"}.get(name, name.replace("_", "-"))
            raise click.UsageError(f"--prompts has a video for each line; leave out --{flag}")
    if flags["out"] == "-":
        raise click.UsageError("-o - takes one video, not --prompts; give a file name")


def _refuse_on_stdout(flags: dict[str, Any]) -> None:
    if flags["as_json"]:
        raise click.UsageError("--json prints on standard output, where -o - puts the video")
    if flags["resume"]:
        raise click.UsageError("-o - keeps nothing to --resume; give a file name")
    if flags["videos"] > 1:
        raise click.UsageError("-o - takes one video, not --videos; give a file name")
    if sys.stdout is None:
        raise click.UsageError("-o - needs standard output, which is closed; give a file name")
    if sys.stdout.isatty():
        raise click.UsageError("-o - would put a video on the terminal; pipe it into a program")


def _has_quality(out: str) -> bool:
    """Tell whether `--crf` means something to the format. Raises click.UsageError for none."""
    from lvdm_rt.video.spec import output_kind

    try:
        return output_kind(out) in ("mp4", "webm")
    except LvdmError as err:
        raise click.UsageError(str(err)) from err


def job_of(flags: dict[str, Any]) -> GenerateJob:
    """Return the job that settled flags mean."""
    from pathlib import Path

    from lvdm_engines.backends.backend import SessionOptions
    from lvdm_rt.commands.job import GenerateJob
    from lvdm_rt.commands.listing import read_listing
    from lvdm_rt.options import GenerateOptions

    asked = {name: flags[name] for name in GenerateOptions.__struct_fields__ if name in flags}
    listing = flags["listing"]
    same = (
        "out",
        "bundle",
        "backend",
        "join",
        "crf",
        "resume",
        "restart",
        "force",
        "max_pixels",
    )
    return GenerateJob(
        options=GenerateOptions(**asked),
        session=SessionOptions(
            **{name: flags[name] for name in ("threads", "precision", "device")}
        ),
        condition=None if flags["condition"] is None else Path(flags["condition"]),
        preview=None if flags["preview"] is None else Path(flags["preview"]),
        repeats=flags.get("repeats"),
        listed=() if listing is None else read_listing(Path(listing)),
        **{name: flags[name] for name in same},
    )
