"""The settings beside a video, `sky.mp4.json`, and by them whether the file is the whole one.

Everything is on the disk, not in a cache, before a name says that it is there.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from lvdm_engines.atomic import open_file, read_file, sync


def sidecar_path(path: Path) -> Path:
    """Return where the settings of the video `path` are kept: `sky.mp4.json` for `sky.mp4`."""
    return path.with_name(f"{path.name}.json")


def write_sidecar(path: Path, settings: str, video: Path) -> None:
    """Write `settings` (JSON, one object) and what tells `video`, a finished file, from others."""
    described = {**json.loads(settings), "file": file_facts(video)}
    with path.open("xb") as file:
        file.write(json.dumps(described).encode() + b"\n")
    sync(path)


def read_sidecar(video: Path) -> dict[str, Any] | None:
    """Return what lies beside a video, None where that is no JSON object."""
    try:
        settings = json.loads(read_file(sidecar_path(video)))
    except (OSError, ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def is_finished(video: Path, settings: dict[str, Any]) -> bool:
    """Tell whether a whole video with these settings is there: size and content are checked."""
    told = read_sidecar(video)
    files = video.iterdir() if video.is_dir() else [video]
    if told is None or not all(file.is_file() for file in files):  # a pipe would be waited for
        return False
    facts = told.pop("file", None)
    return bool(told == settings and facts == file_facts(video))


def file_facts(video: Path) -> dict[str, Any]:
    """Return size and sha256 of a file, or of the files in a directory with their names.

    Raises OSError, also for what is no ordinary file.
    """
    digest, size = hashlib.sha256(), 0
    for file in sorted(video.iterdir()) if video.is_dir() else [video]:
        if file != video:
            digest.update(f"{file.name}\0".encode())
        with open_file(file) as data:
            while block := data.read(1 << 20):
                digest.update(block)
                size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}
