"""A finished bundle, tried again: no checkpoint and no torch needed.

The probes are made anew by their rule and the answers compared with the sample of torch's
answers beside the manifest, so the report means the same as on the day of the export.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from lvdm_engines.bundle import MANIFEST, REFERENCES, Bundle, load_bundle
from lvdm_engines.errors import BundleError, ExportError, one_line
from lvdm_engines.opening import open_session
from lvdm_export.verify import parity
from lvdm_export.verify.probes import make_probes

Report = Callable[[str], None]


def verify_bundle(path_or_name: str, backend: str, report: Report) -> dict[str, dict[str, Any]]:
    """Check files, numerics and batching of every graph; returns what was measured, by graph.

    Raises:
        BundleError: a damaged bundle.
        BackendError: the backend cannot run here.
        ExportError: a graph is outside its tolerance; all graphs that fail are named.

    """
    bundle = load_bundle(path_or_name)
    measured: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    references = read_references(bundle)
    for name, facts in bundle.manifest.graphs.items():
        report(f"{name}: running on {backend}")
        reference = references.get(name)
        count = 1 if reference is None else len(reference.values)
        probes = make_probes(name, facts.inputs, bundle.manifest.model, count)
        with open_session(bundle, name, backend) as session:
            try:
                told = parity.measure(session, probes, reference)
                parity.check(name, told, facts.precision)
            except ExportError as err:
                problems.append(str(err))
                continue
        against = "torch fp32, as recorded" if reference else "nothing recorded"
        measured[name] = told.entry(against)
    if problems:
        raise ExportError(f"{bundle.path}: {'; '.join(problems)}")
    return measured


def read_references(bundle: Bundle) -> dict[str, parity.Reference | None]:
    """Return torch's answers by graph, as far as any were recorded; older manifests hold them.

    Raises BundleError where they cannot be read.
    """
    path = bundle.path / REFERENCES
    there = path.exists()
    try:
        if there:
            kept = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        else:
            kept = {name: told.get("reference") for name, told in bundle.manifest.parity.items()}
        return {name: parity.Reference.recorded(answers) for name, answers in kept.items()}
    except (OSError, ValueError, msgspec.DecodeError, RecursionError) as err:
        raise BundleError(
            f"{path if there else bundle.path / MANIFEST}: the recorded answers are damaged "
            f"({one_line(str(err), 160)}); export the bundle again"
        ) from err
