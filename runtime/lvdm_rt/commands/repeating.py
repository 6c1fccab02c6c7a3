"""The flags that the settings beside a video stand for, to make that video again.

Knows click and sidecars; nothing of how a video is made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.atomic import read_file
from lvdm_engines.errors import OptionsError, cause, quoted

if TYPE_CHECKING:
    from pathlib import Path


def repeated(typed: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Return the flags that a sidecar stands for, without those that were typed."""
    from pathlib import Path

    from lvdm_engines.bundle import builtin_bundles
    from lvdm_rt.options import Settings

    sidecar, mode = typed["repeat"], typed["mode"]
    settings = _read_sidecar(Path(sidecar))
    flags = {name: settings.get(name) for name in Settings.__struct_fields__}
    flags |= {"videos": 1, "first_video": settings.get("video", 0), "repeats": settings}
    flags["crf"] = settings.get("crf")
    if {"sampler", "preset"} & given:  # which bring numbers of their own
        flags |= {"sampler": None, "steps": None, "eta": None}
    elif flags["sampler"] != "ddim":
        flags["eta"] = None
    if flags["sampler"] == "distilled" and typed["steps"] not in (None, settings["steps"]):
        flags["sampler"] = "dpmpp_2m"  # of the teacher: the student knows no other number
    if "preset" in given or typed["sampler"] == "distilled" or mode not in (None, settings["mode"]):
        flags["refine"] = None
    if mode == "short":  # has no condition to be guided by
        flags["guidance"] = None
    if "bundle" not in given and settings.get("bundle") not in list(builtin_bundles()):
        raise click.UsageError(
            f"{sidecar} was made with {quoted(settings.get('bundle'))}, which is not built in; "
            "give it with --bundle"
        )
    flags["bundle"] = settings.get("bundle")
    if "condition_sha256" in settings and "condition" not in given:
        raise click.UsageError(
            f"{sidecar} continues {quoted(settings.get('condition'))}; give it with --condition"
        )
    flags["join"] = "joined_frames" in settings
    if "condition_sha256" not in settings or typed["overlap"] == 0:
        flags["fade"] = None
    return {name: value for name, value in flags.items() if name not in given}


def refuse_own_sidecar(flags: dict[str, Any]) -> None:
    """Refuse a sidecar that the run would replace with one of another number.

    The same command, with `--resume` above all, would then mean other videos.
    """
    import os
    from pathlib import Path

    from lvdm_rt.commands.outputs import output_names
    from lvdm_rt.video import sidecar_path

    later = output_names(flags["out"], flags["videos"])[1:]  # the first one keeps its number
    repeat = os.path.realpath(flags["repeat"])
    if any(os.path.realpath(sidecar_path(Path(name))) == repeat for name in later):
        raise click.UsageError(
            f"--from {flags['repeat']} would be replaced by this run, with the settings of another "
            f"video; add --first-video {flags['first_video']}, or choose another OUT"
        )


def _read_sidecar(path: Path) -> dict[str, Any]:
    import msgspec

    from lvdm_rt.options import Settings

    try:
        settings = json.loads(read_file(path))
    except OSError as err:
        raise OptionsError(f"{path}: cannot be read: {cause(err, 'give an OUT.json')}") from err
    except (ValueError, RecursionError) as err:
        raise OptionsError(f"{path}: is not JSON ({err}); give an OUT.json") from err
    if not isinstance(settings, dict) or "lvdm_rt" not in settings:
        raise OptionsError(f"{path}: holds no settings of a video; give an OUT.json")
    settings = {"refine": 0, **settings}  # older ones do not name it
    try:
        known = {name: settings[name] for name in Settings.__struct_fields__ if name in settings}
        msgspec.convert(known, Settings)
        msgspec.convert(settings.get("crf"), int | None)
    except msgspec.ValidationError as err:
        raise OptionsError(f"{path}: {err}; give an OUT.json as this program writes it") from err
    return settings
