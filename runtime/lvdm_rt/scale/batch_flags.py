"""The flags of `batch`: what they are, which exclude each other, and the batch they mean.

Knows click; imports nothing heavy before a flag needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.completion import PATH
from lvdm_engines.errors import quoted
from lvdm_rt.commands.flags import flags_but
from lvdm_rt.scale.flags import cluster_of, ray_flags

if TYPE_CHECKING:
    from lvdm_rt.scale.batch import BatchAsk, Workers

_NOT_OF_A_BATCH = (
    "out", "videos", "first_video", "listing", "preview", "repeat", "resume", "restart", "force",
)  # fmt: skip
_MOST_SEEDS = 10_000_000


def _seeds(_: object, __: object, text: str | None) -> range | None:
    if text is None:
        return None
    numbers = re.fullmatch(r"(\d{1,20}):(\d{1,20})", text)
    seeds = range(int(numbers[1]), int(numbers[2])) if numbers else range(0)
    if not 0 < seeds.stop - seeds.start <= _MOST_SEEDS or seeds.stop > 1 << 64:
        raise click.BadParameter(f"got {quoted(text)}, expected FIRST:END, as in 0:1000")
    return seeds


# fmt: off
PARAMETERS: list[click.Parameter] = [
    click.Argument(["jobs"], metavar="[JOBS.jsonl]", required=False, shell_complete=PATH),
    click.Option(["-o", "--out"], metavar="DIR", required=True, shell_complete=PATH,
                 help="Where videos and the record batch.jsonl go."),
    click.Option(["--seeds"], callback=_seeds, metavar="FIRST:END",
                 help="A video for each seed from FIRST on, without END, in place of JOBS."),
    click.Option(["--format", "form"], type=click.Choice(["mp4", "webm", "gif", "npz", "png"]),
                 default="mp4", show_default=True, help="Of names without a suffix."),
    click.Option(["--check"], is_flag=True, help="Say what would be made and what cannot be."),
    click.Option(["--force"], is_flag=True, help="Replace videos whose jobs have changed."),
    *flags_but(*_NOT_OF_A_BATCH),
    *click.command("ray")(ray_flags(lambda: None)).params,
    click.Option(["--send-back"], is_flag=True,
                 help="Let workers send videos back even where they see DIR."),
]
# fmt: on


def asked(flags: dict[str, Any], given: set[str]) -> BatchAsk:
    """Return the batch that flags mean. Raises click.UsageError for contradictions."""
    from lvdm_engines.backends.backend import SessionOptions
    from lvdm_rt.options import GenerateOptions
    from lvdm_rt.scale.batch import BatchAsk
    from lvdm_rt.scale.worklist import ForAll

    _refuse_contradictions(flags, given)
    away = flags["ray"] is not None
    options = {name: flags[name] for name in GenerateOptions.__struct_fields__ if name in flags}
    common = ForAll(
        out=_place(flags["out"], away=away),
        options={name: value for name, value in options.items() if value is not None},
        condition=None if flags["condition"] is None else _place(flags["condition"], away=away),
        **{name: flags[name] for name in ("max_pixels", "join", "crf", "force", "form")},
    )
    return BatchAsk(
        source=flags["seeds"] or _place(flags["jobs"], away=away),
        common=common,
        bundle=flags["bundle"],
        backend=flags["backend"],
        session=SessionOptions(
            **{name: flags[name] for name in ("threads", "precision", "device")}
        ),
    )


def _place(name: str, *, away: bool) -> Path:
    """Return a path, which other processes need in full."""
    return Path(name).absolute() if away else Path(name)


def _refuse_contradictions(flags: dict[str, Any], given: set[str]) -> None:
    _refuse_no_list(flags, given)
    for name in ("bundle", "condition", "out", "jobs"):
        if flags[name] == "":
            raise click.UsageError(f"{name} got an empty name; give one, or leave it out")
    if flags["out"] == "-":
        raise click.UsageError("-o - takes one video; give a folder")
    if flags["send_back"] and flags["ray"] is None:
        raise click.UsageError("--send-back belongs to --ray, which was not given")
    if flags["eta"] is not None and flags["sampler"] not in (None, "ddim"):
        raise click.UsageError(f"--eta belongs to ddim, not to --sampler {flags['sampler']}")
    if flags["join"] and flags["fps"] is not None:
        raise click.UsageError(
            "--join keeps the pace of IN and so the model's rate; leave out --fps"
        )


def _refuse_no_list(flags: dict[str, Any], given: set[str]) -> None:
    if (flags["jobs"] is None) == (flags["seeds"] is None):
        address = flags["ray"] or ""
        taken = f"; --ray took {address} for its address" if Path(address).is_file() else ""
        raise click.UsageError(f"give a list, JOBS.jsonl, or --seeds, and not both{taken}")
    if flags["seeds"] is not None and "seed" in given:
        raise click.UsageError("--seeds has a seed for each video; leave out --seed")
    for name in ("fade", "join"):
        if flags["seeds"] and flags[name] and flags["condition"] is None:
            raise click.UsageError(f"--{name} belongs to --condition, which was not given")


def workers_of(flags: dict[str, Any], ask: BatchAsk) -> Workers | None:
    """Return who makes the videos, None for this process. Raises click.UsageError."""
    cluster = cluster_of(flags)
    if cluster is None:
        return None
    from lvdm_rt.scale.batch_away import on_cluster

    return on_cluster(ask, cluster, send_back=flags["send_back"])
