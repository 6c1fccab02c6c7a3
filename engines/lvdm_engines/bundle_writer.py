"""Writing bundles: beside the target, checked, and put in place in one step or not at all."""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from lvdm_engines.atomic import new_directory, put_in_place, read_file, sync
from lvdm_engines.bundle import MANIFEST, REFERENCES, Bundle, GraphSource, file_sha256, load_bundle
from lvdm_engines.contract import check_contract
from lvdm_engines.errors import BundleError, cause, quoted
from lvdm_engines.manifest import TOKENIZER, Manifest, TokenizerFacts
from lvdm_engines.manifest_json import format_manifest, parse_manifest

CARD = "README.md"  # what people say of a model; not read
_PART = r"(\.\w{8}\.partial)?"
_PLAN_FILE = re.compile(
    rf"engines/\.?[0-9a-f]{{16}}{_PART}/\.?(?P<graph>[^/]+)\.(plan|plan\.json|kernels){_PART}"
)


class BundleWriter:
    """A directory under construction: write graph files into `path`, then call `finish`.

    Leaving the context without `finish`, by an error or an interrupt, removes everything and
    leaves the target as it was. An existing target is refused unless `force`; then it stays until
    the new bundle is complete, and only a bundle or an empty directory is ever replaced.
    """

    def __init__(self, target: str | Path, *, force: bool = False) -> None:
        self.target = Path(target).absolute()
        self._force = force
        self._directory = new_directory(self.target)

    def __enter__(self) -> Self:
        _check_target(self.target, force=self._force)
        try:
            self.path = self._directory.__enter__()
        except OSError as err:
            raise _write_error(self.target, err) from err
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        finished = not self.path.exists()
        self._directory.__exit__(None, None, None)
        if isinstance(error, OSError) and self._concerns_us(error):
            raise _write_error(self.target, error) from error
        if error is None and not finished:
            raise BundleError(f"{self.target}: nothing was written, finish() was not called")

    def _concerns_us(self, error: OSError) -> bool:
        """Tell a failed write of this bundle from, say, an input that could not be read."""
        ours = str(error.filename or "").startswith(str(self.path))
        return ours or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

    def record(self, references: Mapping[str, Any]) -> None:
        """Keep what the original network answered, by graph, in a file of its own."""
        (self.path / REFERENCES).write_bytes(msgspec.json.encode(references) + b"\n")

    def keep_tokenizer(self, data: bytes, vocabulary: int) -> TokenizerFacts:
        """Keep the file `tokenizer.json`, for an encoder that knows so many tokens."""
        kept = self.path / TOKENIZER
        kept.write_bytes(data)
        return TokenizerFacts(file_sha256(kept), vocabulary)

    def finish(self, manifest: Manifest) -> Bundle:
        """Check the files against the manifest, write it, and put the bundle in place.

        Raises BundleError for a manifest that does not fit its model or its files.
        """
        data = format_manifest(manifest)
        check_contract(manifest, f"manifest of {quoted(manifest.name)}")
        for name, facts in manifest.graphs.items():
            GraphSource(name, facts, self.path).verified()
        if manifest.tokenizer is not None:
            Bundle(self.path, manifest).tokenizer()
        (self.path / MANIFEST).write_bytes(data)
        _check_target(self.target, force=self._force)
        card, old = self.path / CARD, self.target / CARD
        if old.is_file() and not card.exists():
            card.write_bytes(old.read_bytes())  # people's words, which no export makes again
        sync(self.path)
        put_in_place(self.path, self.target)
        return load_bundle(self.target)


def _check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that exists, or that `force` should not replace either."""
    if not os.path.lexists(target):
        return
    if not force:
        raise BundleError(f"{target}: already exists; choose another directory or pass --force")
    if target.is_symlink() or not target.is_dir():
        raise BundleError(
            f"{target}: exists and is not a bundle, so it is not replaced; choose another directory"
        )
    strangers = _strangers(target)
    if strangers:
        some = ", ".join([*strangers[:3], *(["more"] if strangers[3:] else [])])
        raise BundleError(
            f"{target}: holds {some}, not of a bundle, so it is not replaced; move that away or "
            "choose another directory"
        )


def _strangers(folder: Path) -> list[str]:
    """Return what lies in a directory and is no part of a bundle; everything, if it is none."""
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    try:
        manifest = parse_manifest(read_file(folder / MANIFEST))
    except (BundleError, OSError):
        return names
    known = {MANIFEST, REFERENCES, CARD, *([TOKENIZER] if manifest.tokenizer else [])}
    for graph in manifest.graphs.values():
        known |= graph.files.keys()
    stems = {Path(graph.file).stem for graph in manifest.graphs.values()}
    return [name for name in names if name not in known and not _is_plan(name, stems)]


def _is_plan(name: str, stems: set[str]) -> bool:
    found = _PLAN_FILE.fullmatch(name)
    return found is not None and found["graph"] in stems


def _write_error(target: Path, err: OSError) -> BundleError:
    return BundleError(f"{target}: cannot be written: {cause(err, 'choose another directory')}")
