"""Sidecars of compiled plans, which are shown and not run."""

from pathlib import Path

import msgspec
import toy_frames
from fuzz.kind import Kind, Rng, commands
from toy_damage import damage

from lvdm_engines.backends.plan_facts import Fingerprint, PlanFacts, PlanOptions, Range
from lvdm_engines.bundle import file_sha256


def prepare(folder: Path) -> None:
    """Write the toy bundle with the sidecar of a plan that nobody has built."""
    toy_frames.write_bundle(folder / "toy")
    digest = file_sha256(folder / "toy" / "predict.onnx")
    made = Fingerprint(
        graph="predict", library="tensorrt", version="10.13", gpu="any", capability="8.6",
        onnx_sha256=digest, data_sha256=None, precision="fp32",
        profiles=({"b": Range(1, 8, 32)},), options=PlanOptions(),
    )  # fmt: skip
    facts = PlanFacts(
        file="predict.plan", sha256=digest, bytes=4, fingerprint=made, seconds=1.0,
        built_at="2026-01-01T00:00:00", summary={"layers": 3},
    )  # fmt: skip
    place = folder / "toy" / "engines" / made.digest
    place.mkdir(parents=True)
    (place / "predict.plan").write_bytes(b"plan")
    (place / "predict.plan.json").write_bytes(msgspec.json.encode(facts))


def plan(folder: Path, rng: Rng) -> str:
    """Change the sidecar."""
    (sidecar,) = folder.glob("toy/engines/*/*.json")
    return damage(sidecar, rng)


def show_plans(folder: Path) -> int:
    """Show the bundle with its plans, which are not run."""
    del folder
    return commands("lvdm_export", ["inspect", "./toy"], ["inspect", "--json", "./toy"])


KINDS = (Kind("plan", prepare, plan, show_plans),)
