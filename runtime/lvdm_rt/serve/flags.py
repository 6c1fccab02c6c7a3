"""The flags of `lvdm-rt serve` and the job they mean; knows click and the environment's token.

Imports nothing heavy before the command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.atomic import read_file
from lvdm_engines.backends.backend import BACKENDS, CPU_PRECISIONS, MOST_THREADS
from lvdm_engines.completion import BUNDLE, PATH
from lvdm_engines.errors import OptionsError
from lvdm_engines.ranges import NumberRange, WholeRange
from lvdm_rt.bounds import MAX_BATCH, MAX_FRAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from lvdm_rt.serve.server import ServeJob

TOKEN = "LVDM_RT_TOKEN"  # noqa: S105 - the name of the variable

_count = WholeRange(1)

# fmt: off
_FLAGS = (
    click.option("--bundle", default="sky-tiny", show_default=True, metavar="B",
                 shell_complete=BUNDLE,
                 help="A built-in name, a directory, or hf://OWNER/NAME[@REVISION]."),
    click.option("--folder", default="lvdm-rt-videos", show_default=True, metavar="DIR",
                 shell_complete=PATH, help="Where jobs and videos are kept."),
    click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
                 help="Where to listen; any but this machine's own needs a token."),
    click.option("--port", type=WholeRange(0, 65535), default=8000, show_default=True,
                 metavar="N", help="0 for any that is free."),
    click.option("--token-file", metavar="FILE", shell_complete=PATH,
                 help=f"Ask for the token in FILE. Or set {TOKEN}."),
    click.option("--allow-host", "hosts", multiple=True, metavar="NAME",
                 help="Another name of this server, as behind a proxy; may be repeated."),
    click.option("--allow-origin", "origins", multiple=True, metavar="URL",
                 help="A site whose pages may use this server; may be repeated."),
    click.option("--proxy", "proxies", multiple=True, metavar="ADDRESS",
                 help="A proxy that says who asks (X-Forwarded-For); may be repeated."),
    click.option("--batch-size", type=WholeRange(1, MAX_BATCH), metavar="N",
                 help="Clips per network call, and so jobs that are made together."),
    click.option("--exact/--no-exact", help="Bit-identical videos in whatever company."),
    click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto",
                 show_default=True),
    click.option("--threads", type=WholeRange(1, MOST_THREADS), metavar="N",
                 help="CPU threads. Default: all cores."),
    click.option("--precision", type=click.Choice(CPU_PRECISIONS), help="Of the CPU's arithmetic."),
    click.option("--device", type=WholeRange(0), default=0, metavar="N", help="Which GPU."),
    click.option("--max-frames", type=WholeRange(1, MAX_FRAMES), default=4096, show_default=True,
                 metavar="N", help="Of one video."),
    click.option("--max-queue", type=_count, default=64, show_default=True, metavar="N",
                 help="Jobs that wait."),
    click.option("--max-client-jobs", type=_count, default=16, show_default=True, metavar="N",
                 help="Jobs of one address that wait or are being made."),
    click.option("--max-body", type=_count, default=64, show_default=True, metavar="MIB",
                 help="Of one request, an uploaded video included."),
    click.option("--max-pixels", type=_count, default=1 << 24, show_default=True, metavar="N",
                 help="Of each picture of an uploaded video."),
    click.option("--keep-hours", type=NumberRange(0, min_open=True), metavar="H",
                 help="Remove videos after this time. Default: never."),
    click.option("--keep-gib", type=NumberRange(0, min_open=True), metavar="G",
                 help="Remove the oldest videos beyond this space. Default: never."),
    click.option("--grace", type=NumberRange(0), default=10.0, show_default=True, metavar="S",
                 help="Seconds for running jobs to end when the server stops; else they are gone on with later."),  # noqa: E501
    click.option("-v", "--verbose", count=True, help="Say more on stderr; twice: much more."),
    click.option("-q", "--quiet", is_flag=True, help="Say less on stderr."),
)
# fmt: on


def serve_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all flags of `serve`."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def serve_job(flags: dict[str, Any]) -> ServeJob:
    """Return what flags mean. Raises OptionsError for a token file that cannot be read."""
    from lvdm_engines.backends.backend import SessionOptions
    from lvdm_rt.serve.limits import ServeLimits
    from lvdm_rt.serve.server import ServeJob
    from lvdm_rt.serve.service import Keeping

    same = (
        "bundle", "host", "port", "hosts", "origins", "proxies", "backend", "batch_size", "exact",
        "grace",
    )  # fmt: skip
    hours, gib = flags["keep_hours"], flags["keep_gib"]
    return ServeJob(
        folder=Path(flags["folder"]),
        token=_token(flags["token_file"]),
        session=SessionOptions(
            **{name: flags[name] for name in ("threads", "precision", "device")}
        ),
        limits=ServeLimits(
            frames=flags["max_frames"],
            queue=flags["max_queue"],
            client_jobs=flags["max_client_jobs"],
            body=flags["max_body"] << 20,
            upload_pixels=flags["max_pixels"],
        ),
        keeping=Keeping(
            seconds=None if hours is None else 3600 * hours,
            bytes=None if gib is None else int(gib * 2**30),
        ),
        **{name: flags[name] for name in same},
    )


def _token(file: str | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN, "").strip() or None
    try:
        token = read_file(Path(file)).decode().strip()
    except (OSError, UnicodeDecodeError) as err:
        raise OptionsError(f"{file}: cannot be read as a token ({err}); give another") from err
    if not token:
        raise OptionsError(f"{file}: holds no token; put a long random word in")
    return token
