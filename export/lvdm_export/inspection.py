"""What a bundle holds, for people and for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lvdm_engines.backends.trt.build import stored_plans
from lvdm_engines.bundle import Bundle, load_bundle

if TYPE_CHECKING:
    from lvdm_engines.backends.trt.store import CompiledPlan
    from lvdm_engines.manifest import GraphFacts, ModelFacts


def facts(path_or_name: str) -> dict[str, Any]:
    """Return the manifest as plain containers, and under `plans` what was compiled, by graph.

    Raises BundleError.
    """
    bundle = load_bundle(path_or_name)
    plain: dict[str, Any] = msgspec.to_builtins(bundle.manifest)
    plain["plans"] = {
        name: [{"path": str(plan.path), **msgspec.to_builtins(plan.facts)} for plan in plans]
        for name, plans in stored_plans(bundle).items()
    }
    return plain


def describe(path_or_name: str) -> str:
    """Return a bundle's description as text, one block per graph. Raises BundleError."""
    bundle = load_bundle(path_or_name)
    manifest = bundle.manifest
    origin = manifest.provenance
    lines = [
        f"{manifest.name} ({bundle.path})",
        *_model(manifest.model),
        (
            f"  weights: {'EMA' if origin.ema else 'plain'}, checkpoint {_checkpoints(bundle)}, "
            f"lvdm-rt {origin.lvdm_rt}, torch {origin.torch or 'unknown'}"
        ),
    ]
    plans = stored_plans(bundle)
    for name, graph in manifest.graphs.items():
        lines += ["", *_graph(bundle, name, graph, plans[name])]
    for name, value in manifest.quality.items():
        lines += ["", f"quality {name}: {value}"]
    return "\n".join(lines)


def _model(model: ModelFacts) -> list[str]:
    latent, schedule = model.latent, model.schedule
    clips = [
        f"{name} {getattr(model, name).clip}"
        for name in ("short", "predict", "interpolate")
        if getattr(model, name) is not None
    ]
    return [
        (
            f"  frames {_by(model.frame_size)}, latents {latent.channels}×{_by(latent.size)}, "
            f"{model.frames_per_latent} frames per latent, "
            f"scale {latent.scale}, shift {latent.shift}"
        ),
        (
            f"  schedule {schedule.kind}, {schedule.steps} steps, "
            f"beta {schedule.beta_start} to {schedule.beta_end}; "
            f"noise levels {model.noise_levels or 'none'}"
        ),
        f"  clips: {', '.join(clips)}; decode window {model.decode_window}",
    ]


def _graph(bundle: Bundle, name: str, graph: GraphFacts, plans: list[CompiledPlan]) -> list[str]:
    size = sum((bundle.path / file).stat().st_size for file in graph.files)
    parameters = "unknown" if graph.parameters is None else f"{graph.parameters / 1e6:.2f} M"
    gflop = "unknown" if graph.gflop is None else f"{graph.gflop:.4g}"
    return [
        f"{name}: {graph.file}, {graph.precision}, {size / 1e6:.2f} MB",
        *(f"  in   {spec}" for spec in graph.inputs),
        *(f"  out  {spec}" for spec in graph.outputs),
        f"  parameters {parameters}, GFLOP per run {gflop} (batch 1)",
        *(f"  sha256 {digest}  {file}" for file, digest in graph.files.items()),
        f"  parity {_parity(bundle.manifest.parity.get(name))}",
        *(f"  plan {_plan(plan)}" for plan in plans),
    ]


def _plan(plan: CompiledPlan) -> str:
    made = plan.facts.fingerprint
    summary = ", ".join(f"{name} {value}" for name, value in plan.facts.summary.items())
    return (
        f"{made.library} {made.version} for {made.gpu} ({made.capability}), {made.precision}, "
        f"{plan.facts.bytes / 1e6:.2f} MB{', ' if summary else ''}{summary}"
    )


def _parity(entry: dict[str, Any] | None) -> str:
    if not entry:
        return "not measured"
    shown = {k: v for k, v in entry.items() if not isinstance(v, dict | list)}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _checkpoints(bundle: Bundle) -> str:
    digests = bundle.manifest.provenance.checkpoint_sha256
    if isinstance(digests, str):
        return digests[:12]
    return ", ".join(f"{name} {digest[:12]}" for name, digest in digests.items())


def _by(size: tuple[int, int]) -> str:
    return "×".join(str(n) for n in size)
