"""Plans on disk: writing them whole, finding the right one, and saying what is wrong with others.

A plan is executable code. It is trusted because this user built it: its sha256 stands in the user's
own list, not only in the sidecar, and a plan that does not match is neither used nor removed.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from lvdm_engines.atomic import new_directory, put_in_place, read_file, sync
from lvdm_engines.backends.plan_facts import (
    Fingerprint,
    PlanFacts,
    PlanOptions,
    rebuild_command,
)
from lvdm_engines.backends.trt.compile import TURING
from lvdm_engines.backends.trt.library import ANY, TargetMachine
from lvdm_engines.backends.trt.profiles import graph_files, profiles_for
from lvdm_engines.backends.trt.vouched import is_vouched, vouch
from lvdm_engines.bundle import GraphSource, load_bundle
from lvdm_engines.errors import BackendError, BundleError, cause
from lvdm_engines.manifest import Manifest

# what a message calls the fields of a fingerprint beside its options
_WORDS = {
    "format": "plan format",
    "graph": "file",
    "version": "library version",
    "gpu": "GPU",
    "capability": "compute capability",
    "onnx_sha256": "ONNX file",
    "data_sha256": "ONNX weights",
    "precision": "precision",
}


@dataclass(frozen=True)
class CompiledPlan:
    """A plan on disk as its sidecar describes it, not yet read."""

    path: Path
    facts: PlanFacts

    @property
    def rebuild(self) -> str:
        """The command that replaces this plan."""
        made, folder = self.facts.fingerprint, self.path.parents[2]  # of the bundle
        return rebuild_command(str(folder), made.library, made.options, force=True)

    def read(self) -> bytes:
        """Return the plan, whose very bytes this user has built. Raises BundleError."""
        try:
            data = read_file(self.path)
        except OSError as err:
            raise BundleError(
                f"{self.path}: cannot be read: {cause(err, f'build again: {self.rebuild}')}"
            ) from err
        got = hashlib.sha256(data).hexdigest()
        if got != self.facts.sha256:
            raise BundleError(
                f"{self.path}: got sha256 {got[:12]}…, expected {self.facts.sha256[:12]}… of its "
                f"sidecar; the plan is damaged or was replaced, build again: {self.rebuild}"
            )
        if not is_vouched(got):
            raise BundleError(
                f"{self.path}: is executable code that you have not built, so it is not run; "
                f"build it yourself: {self.rebuild}"
            )
        return data


def save_plan(source: GraphSource, facts: PlanFacts, plan: Any) -> CompiledPlan:
    """Put a plan and its sidecar in place in one step; an equal older one is replaced.

    Raises BundleError where the bundle cannot be written.
    """
    folder = source.engines / facts.fingerprint.digest
    try:
        with new_directory(folder) as partial:
            (partial / facts.file).write_bytes(plan)
            sidecar = msgspec.json.format(msgspec.json.encode(facts), indent=1)
            (partial / f"{facts.file}.json").write_bytes(sidecar)
            sync(partial)
            vouch(facts.sha256)
            put_in_place(partial, folder)
    except OSError as err:
        raise BundleError(
            f"{folder}: cannot be written: {cause(err)}; or copy the bundle to a directory of "
            "yours and build there"
        ) from err
    return CompiledPlan(folder / facts.file, facts)


def plans_of(source: GraphSource) -> list[CompiledPlan]:
    """Return every plan of a graph's file whose sidecar can be read, the newest first."""
    stem = Path(source.facts.file).stem
    found = []
    for sidecar in source.engines.glob(f"[!.]*/{stem}.plan.json"):  # hidden ones are not whole
        try:
            facts = msgspec.json.decode(read_file(sidecar), type=PlanFacts)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue  # of another version of this library, or damaged: not ours to judge
        found.append(CompiledPlan(sidecar.with_suffix(""), facts))
    return sorted(found, key=lambda plan: plan.facts.built_at, reverse=True)


def find_plan(
    source: GraphSource, here: TargetMachine, wanted: PlanOptions | None = None
) -> CompiledPlan:
    """Return the newest plan of a graph that fits this machine, and that was built as `wanted`.

    Without `wanted` any options will do, but the profiles must be those that they stand for.

    Raises BackendError that names what differs in the nearest plan and the command to build one.
    """
    plans = [p for p in plans_of(source) if p.facts.fingerprint.library == here.library]
    bundle = str(source.folder)
    if not plans:
        raise BackendError(
            f"no plan of {source.name!r} in {source.engines}; "
            f"build one: {rebuild_command(bundle, here.library, wanted)}"
        )
    manifest = load_bundle(source.folder).manifest
    judged = []
    for plan in plans:
        made = plan.facts.fingerprint
        expected = fingerprint_of(source, manifest, here, wanted or made.options)
        wrong = _misfits(made, expected, here)
        if not wrong and plan.path.is_file():
            return plan
        judged.append((wrong, plan))
    wrong, nearest = min(judged, key=lambda pair: len(pair[0]))
    told = "; ".join(wrong) or f"{nearest.path.name} is missing"
    options = wanted or nearest.facts.fingerprint.options
    if not _covers(options, here):
        options = replace(options, targets=(*options.targets, here.capability))
    command = rebuild_command(bundle, here.library, options)
    raise BackendError(
        f"no plan of {source.name!r} fits this machine, the nearest "
        f"({nearest.path.parent}) is kept but not used: {told}; build again: {command}"
    )


def fingerprint_of(
    source: GraphSource, manifest: Manifest, here: TargetMachine, options: PlanOptions
) -> Fingerprint:
    """Return what a plan of a graph says of itself if it is built for this machine as asked."""
    names: tuple[str, ...] = next((n for n in graph_files(manifest) if source.name in n), ())
    return Fingerprint(
        graph=Path(source.facts.file).stem,
        library=here.library,
        version=here.version,
        gpu=ANY if here.portable else here.gpu,
        capability="+".join(options.targets) or ANY if here.portable else here.capability,
        onnx_sha256=source.facts.sha256,
        data_sha256=source.facts.data_sha256,
        precision=source.facts.precision,
        profiles=profiles_for(manifest, names, options),
        options=options,
    )


def differences(made: Fingerprint, expected: Fingerprint) -> list[str]:
    """Return in words every way in which a plan was made for something else.

    Profiles follow from the options, so that they are told where those are the same.
    """
    pairs = [(word, getattr(made, n), getattr(expected, n)) for n, word in _WORDS.items()]
    pairs += [
        (f"option {name}", getattr(made.options, name), getattr(expected.options, name))
        for name in PlanOptions.__struct_fields__
    ]
    if made.options == expected.options:
        pairs.append(("profiles", made.profiles, expected.profiles))
    return [
        f"{word}: got {_short(got)} in the plan, expected {_short(want)}"
        for word, got, want in pairs
        if got != want
    ]


def _misfits(made: Fingerprint, expected: Fingerprint, here: TargetMachine) -> list[str]:
    """Return in words why a plan cannot run on this machine."""
    if _runs_under(made, here.version):
        expected = replace(expected, version=made.version)
    told = differences(made, expected)
    if not _covers(made.options, here):
        targets = ", ".join(made.options.targets) or "the library's own targets"
        told.append(f"compute capability: got {targets} in the plan, expected {here.capability}")
    return told


def _covers(options: PlanOptions, here: TargetMachine) -> bool:
    """Tell whether a plan of TensorRT-RTX was compiled for a GPU; Turing must be asked for."""
    if not here.portable:
        return True
    return here.capability in options.targets if options.targets else here.capability != TURING


def _runs_under(made: Fingerprint, version: str) -> bool:
    """Tell whether a version-compatible plan may run under a later library of its major version.

    NVIDIA promises it within a major version only.
    """

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(".") if part.isdecimal()]

    old, new = numbers(made.version), numbers(version)
    return made.options.version_compatible and old[:1] == new[:1] and old <= new


def _short(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:12]}…" if len(value) == 64 else value  # a sha256
    if isinstance(value, tuple) and value and isinstance(value[0], dict):  # profiles
        parts = (", ".join(f"{dim} {size}" for dim, size in profile.items()) for profile in value)
        return " ".join(f"({part})" for part in parts)
    return str(value)
