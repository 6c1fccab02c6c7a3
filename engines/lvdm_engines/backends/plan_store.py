"""Plans on disk: writing them whole, finding the right one, and saying why another is not.

A plan is executable code. It is trusted because this machine built it: nothing is downloaded, the
sidecar holds its sha256, and a plan that does not match is neither used nor removed.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lvdm_engines.backends.library import ANY, Here
from lvdm_engines.bundle import file_sha256
from lvdm_engines.errors import BackendError, BundleError
from lvdm_engines.plan_facts import FORMAT, Fingerprint, PlanFacts, rebuild_command

if TYPE_CHECKING:
    from lvdm_engines.bundle import GraphSource

_log = logging.getLogger(__name__)

# what a message calls the fields of a fingerprint that the machine or the bundle decides
_WORDS = {
    "format": "plan format",
    "version": "library version",
    "gpu": "GPU",
    "capability": "compute capability",
    "onnx_sha256": "ONNX file",
    "data_sha256": "ONNX weights",
    "precision": "precision",
    "profiles": "profiles",
    "options": "options",
}


@dataclass(frozen=True)
class Plan:
    """A plan that fits, not yet read."""

    path: Path
    facts: PlanFacts

    def read(self) -> bytes:
        """Return the plan once it has the sidecar's sha256. Raises BundleError."""
        got = file_sha256(self.path)
        if got != self.facts.sha256:
            raise BundleError(
                f"{self.path}: got sha256 {got[:12]}…, expected {self.facts.sha256[:12]}… of its "
                "sidecar; the plan is damaged or was replaced, remove its directory and build again"
            )
        return self.path.read_bytes()


def save_plan(source: GraphSource, facts: PlanFacts, plan: Any) -> Plan:
    """Put a plan and its sidecar in place in one step; an equal older one is replaced.

    Raises BundleError where the bundle cannot be written.
    """
    folder = source.engines / facts.fingerprint.digest
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        (partial / facts.file).write_bytes(plan)
        sidecar = msgspec.json.format(msgspec.json.encode(facts), indent=1)
        (partial / f"{facts.file}.json").write_bytes(sidecar)
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():
            _log.info("%s: replaced by an equal build", folder)
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as err:
        raise BundleError(
            f"{folder}: cannot be written ({err.strerror or err}); free space there, or copy the "
            "bundle to a directory of yours and build there"
        ) from err
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Plan(folder / facts.file, facts)


def plans_of(source: GraphSource) -> list[Plan]:
    """Return every plan of a graph's file whose sidecar can be read, the newest first."""
    stem = Path(source.facts.file).stem
    found = []
    for sidecar in source.engines.glob(f"*/{stem}.plan.json"):
        try:
            facts = msgspec.json.decode(sidecar.read_bytes(), type=PlanFacts)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue  # of another version of this library, or damaged: not ours to judge
        found.append(Plan(sidecar.with_suffix(""), facts))
    return sorted(found, key=lambda plan: plan.facts.built_at, reverse=True)


def find_plan(source: GraphSource, here: Here) -> Plan:
    """Return the newest plan of a graph that fits this machine.

    Raises BackendError that names what differs in the nearest plan and the command to build one.
    """
    plans = [p for p in plans_of(source) if p.facts.fingerprint.library == here.library]
    judged = [(differences(plan.facts.fingerprint, source, here), plan) for plan in plans]
    for wrong, plan in judged:
        if not wrong and plan.path.is_file():
            return plan
    bundle = str(source.folder)
    if not judged:
        raise BackendError(
            f"no plan of {source.name!r} in {source.engines}; "
            f"build one: {rebuild_command(bundle, here.library, None)}"
        )
    wrong, nearest = min(judged, key=lambda pair: len(pair[0]))
    told = "; ".join(wrong) or f"{nearest.path.name} is missing"
    command = rebuild_command(bundle, here.library, nearest.facts.fingerprint.options)
    raise BackendError(
        f"no plan of {source.name!r} fits this machine, the nearest "
        f"({nearest.path.parent}) is kept but not used: {told}; build again: {command}"
    )


def differences(made: Fingerprint, source: GraphSource, here: Here) -> list[str]:
    """Return in words every way in which a plan was made for something else."""
    wanted = {
        "format": FORMAT,
        "version": here.version,
        "gpu": here.gpu if made.gpu != ANY else ANY,
        "capability": here.capability if made.gpu != ANY else made.capability,
        "onnx_sha256": source.facts.sha256,
        "data_sha256": source.facts.data_sha256,
        "precision": source.facts.precision,
    }
    return [
        f"{_WORDS[name]}: got {_short(getattr(made, name))} in the plan, expected {_short(want)}"
        for name, want in wanted.items()
        if getattr(made, name) != want and not (name == "version" and _newer(made, here.version))
    ]


def differing_requests(made: Fingerprint, wanted: Fingerprint) -> list[str]:
    """Return in words what was asked differently in two builds of one graph."""
    return [
        f"{word}: got {_short(getattr(made, name))}, expected {_short(getattr(wanted, name))}"
        for name, word in _WORDS.items()
        if getattr(made, name) != getattr(wanted, name)
    ]


def _newer(made: Fingerprint, version: str) -> bool:
    """Tell whether a version-compatible plan may run under a later library."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(".") if part.isdigit()]

    return made.options.version_compatible and numbers(made.version) <= numbers(version)


def _short(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:12]}…" if len(value) == 64 else value  # a sha256
    return str(msgspec.to_builtins(value))
