"""Bundles from a model hub: `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`.

huggingface_hub fetches and caches; what is cached already is used without a network. Knows names
of files only: their sha256 are checked against the manifest like those of any other bundle.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lvdm_engines.errors import BundleError, quoted

SCHEME = "hf://"
_REFERENCE = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
# Compiled plans are executable code, and only for one kind of GPU: they are never fetched.
_FILES = ["*.json", "*.onnx", "*.onnx.data", "README.md"]
_NEVER = ["engines/*", "*/*"]


def fetch_bundle(reference: str) -> Path:
    """Return the directory of a bundle, fetched if it is not in the hub's cache.

    Raises BundleError for a reference of another form, a missing package, and whatever the hub
    or the network refuses.
    """
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        raise BundleError(
            f"got {quoted(reference)}, expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as err:
        raise BundleError(
            f"{reference}: huggingface_hub is not installed; pip install 'lvdm-rt[hub]'"
        ) from err
    name, revision = parts.groups()
    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=_FILES, ignore_patterns=_NEVER
        )
    except (OSError, ValueError) as err:  # what the hub and HTTP raise are kinds of these
        reason = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise BundleError(
            f"{reference}: cannot be fetched ({reason}); check the name and revision, the network, "
            "and that you may read it"
        ) from err
    return _without_links(Path(folder))


def _without_links(folder: Path) -> Path:
    """Return a directory in which weights are files, not links, which some engines refuse.

    Hard links cost no space. Where they cannot be made the folder is used as it is.
    """
    if not any(file.is_symlink() for file in folder.glob("*.onnx.data")):
        return folder
    plain = folder.parent.parent / "lvdm-rt" / folder.name
    with suppress(OSError):
        plain.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            _link(file.resolve(), plain / file.name)
        return plain
    return folder


def _link(blob: Path, name: Path) -> None:
    """Give a file a second name, in place of one that was linked before it was fetched again."""
    if name.exists() and name.samefile(blob):
        return
    draft = name.with_name(f".{name.name}.{os.getpid()}")
    os.link(blob, draft)
    draft.replace(name)


@contextmanager
def advice(bundle: Path) -> Iterator[None]:
    """Correct the advice of errors about a bundle that was fetched: it is not exported again here.

    Raises BundleError as it came where the bundle is no fetched one.
    """
    try:
        yield
    except BundleError as err:
        fetched = next((f for f in bundle.parents if f.name.startswith("models--")), None)
        if fetched is None:
            raise
        again = f"delete {fetched} to have it fetched again, or ask its owner"
        raise BundleError(str(err).replace("export the bundle again", again)) from err
