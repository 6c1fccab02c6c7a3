"""Whether two configs make the same model: what a resumed run is held to."""

from pathlib import Path
from typing import Any

from lvdm_engines.errors import TrainingError, quoted

# plumbing, length, and what is recorded by content; the rest makes another model
_FREE_TO_CHANGE = (
    "steps", "device", "every", "decode_window", "autoencoder", "start_from", "whiten",
)  # fmt: skip


def _differences(ours: object, theirs: object, path: str = "") -> list[str]:
    """List fields that differ between two plain configs, as `field: ours, theirs`."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [f"{path}: {quoted(ours)} here, {quoted(theirs)} there"]
    return [
        line
        for key in sorted(ours.keys() | theirs.keys())
        if path or key not in _FREE_TO_CHANGE
        for line in _differences(ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    ]


def check_same(ours: dict[str, Any], theirs: dict[str, Any], folder: Path) -> None:
    """Refuse to resume a run under another config, naming the fields."""
    changed = _differences(ours, theirs)
    if changed:
        raise TrainingError(
            f"{folder} was started with another config ({'; '.join(changed)}): "
            "resume with the old one, or train into a new folder"
        )
