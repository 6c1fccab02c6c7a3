"""Bundles on disk: finding, reading and verifying them; what runs their graphs lies elsewhere."""

import hashlib
import importlib.resources
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lvdm_engines.atomic import read_file
from lvdm_engines.contract import check_contract, mismatch
from lvdm_engines.errors import BundleError, cause, quoted
from lvdm_engines.hub import SCHEME, advice, fetch_bundle
from lvdm_engines.manifest import TOKENIZER, GraphFacts, Manifest, TensorSpec
from lvdm_engines.manifest_json import parse_manifest
from lvdm_engines.onnx_data import weight_files

MANIFEST = "manifest.json"
REFERENCES = "references.json"  # answers that graphs are held to again, by graph; may be absent

_digests: dict[tuple[Path, int, int], str] = {}  # of files that did not change in this process


@dataclass(frozen=True)
class GraphSource:
    """One graph of a bundle, as a backend gets it to open."""

    name: str
    facts: GraphFacts
    folder: Path

    @property
    def engines(self) -> Path:
        """Where compiled forms of the bundle's graphs lie, a directory per fingerprint."""
        return self.folder / "engines"

    @property
    def bytes(self) -> int:
        """Size of its files, most of which are weights."""
        return sum((self.folder / name).stat().st_size for name in self.facts.files)

    def check_tensors(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Refuse a graph whose real tensors are not the declared ones. Raises BundleError."""
        problem = mismatch(inputs, outputs, self.facts)
        if problem:
            raise BundleError(
                f"{self.folder}: graph {self.name!r} ({self.facts.file}) is not what the "
                f"manifest declares: {problem}; export the bundle again"
            )

    def verified(self) -> Path:
        """Return the path of the ONNX file once it and its data have the promised sha256.

        Raises BundleError for a missing or changed file.
        """
        with advice(self.folder):
            for name, expected in self.facts.files.items():
                _check_digest(self.folder / name, expected)
            _check_data(self.folder / self.facts.file, self.facts)
        return self.folder / self.facts.file


@dataclass(frozen=True)
class Bundle:
    """A directory with a manifest that was read and found possible."""

    path: Path
    manifest: Manifest

    def graph(self, name: str) -> GraphSource:
        """Return one graph. Raises BundleError, with the known names, if there is none."""
        facts = self.manifest.graphs.get(name)
        if facts is None:
            known = ", ".join(self.manifest.graphs) or "none"
            raise BundleError(
                f"{self.path}: no graph {quoted(name)}, the bundle has: {known}; "
                "export the bundle with that model"
            )
        return GraphSource(name, facts, self.path)

    def tokenizer(self) -> Path:
        """Return the path of the tokenizer's file once it has the promised sha256.

        Raises BundleError for a missing or changed file, and where the model reads no text.
        """
        facts, path = self.manifest.tokenizer, self.path / TOKENIZER
        if facts is None:
            raise BundleError(
                f"{self.path}: has no tokenizer; take a bundle that was made with --text"
            )
        with advice(self.path):
            _check_digest(path, facts.sha256)
        return path


def load_bundle(path_or_name: str | Path) -> Bundle:
    """Read a bundle: a directory, a built-in one by its name, or `hf://OWNER/NAME[@REVISION]`.

    A directory that has the name of a built-in bundle is written ./NAME.

    Graph files must exist; their sha256 is verified when a session is opened.
    Raises BundleError for an unknown name, a damaged manifest or a missing file.
    """
    path = _find(path_or_name)
    with advice(path):
        return Bundle(path, _read(path))


def builtin_bundles() -> dict[str, Path]:
    """Return the bundles that come with this package, by name."""
    root = Path(str(importlib.resources.files("lvdm_engines"))) / "bundles"
    return {found.parent.name: found.parent for found in sorted(root.glob(f"*/{MANIFEST}"))}


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hex, remembered while its size and time do not change.

    Raises BundleError if the file cannot be read.
    """
    try:
        path = Path(os.path.realpath(path))
        stat = path.stat()
        key = (path, stat.st_mtime_ns, stat.st_size)
        if key not in _digests:
            with path.open("rb") as file:
                _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise BundleError(
            f"{path}: cannot be read: {cause(err, 'export the bundle again')}"
        ) from err
    return _digests[key]


def _check_digest(path: Path, expected: str) -> None:
    """Refuse a file with another sha256 than the manifest promises. Raises BundleError."""
    got = file_sha256(path)
    if got != expected:
        raise BundleError(
            f"{path}: got sha256 {got[:12]}…, expected {expected[:12]}… of the manifest; the file "
            "is damaged or was replaced, export the bundle again"
        )


def _check_data(path: Path, facts: GraphFacts) -> None:
    """Refuse weights in a file that the manifest has no sha256 of. Raises BundleError."""
    expected = f"{path.name}.data".encode()
    for name in weight_files(path):
        if facts.data_sha256 is None or name != expected:
            raise BundleError(
                f"{path}: keeps weights in {quoted(name.decode(errors='replace'))}, of which "
                "the manifest has no sha256; export the bundle again"
            )


def _read(path: Path) -> Manifest:
    try:
        data = read_file(path / MANIFEST)
    except OSError as err:
        raise BundleError(
            f"{path / MANIFEST}: cannot be read, expected a bundle's manifest: "
            f"{cause(err, 'export the bundle again')}"
        ) from err
    manifest = parse_manifest(data, str(path / MANIFEST))
    check_contract(manifest, str(path / MANIFEST))
    files = [name for graph in manifest.graphs.values() for name in graph.files]
    for name in [*files, *([TOKENIZER] if manifest.tokenizer else [])]:
        if not (path / name).is_file():
            raise BundleError(f"{path / name}: file is missing; export the bundle again")
    return manifest


def _find(path_or_name: str | Path) -> Path:
    builtin = builtin_bundles()
    if isinstance(path_or_name, str) and path_or_name in builtin:
        return builtin[path_or_name]
    if isinstance(path_or_name, str) and path_or_name.startswith(SCHEME):
        return fetch_bundle(path_or_name)
    path = Path(path_or_name)
    if not path.is_dir() or path_or_name == "":
        known, named = ", ".join(builtin) or "none", path_or_name or "an empty name"
        raise BundleError(
            f"{named}: got neither a bundle directory nor a built-in bundle; "
            f"give a directory made by lvdm-export build-engines, or one of the built-in: {known}"
        )
    return path
