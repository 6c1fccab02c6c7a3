"""What a bundle holds: one screen for people, everything for scripts."""

import textwrap
from collections.abc import Mapping
from typing import Any

import msgspec

from lvdm_engines.backends.trt.build import stored_plans
from lvdm_engines.backends.trt.store import CompiledPlan
from lvdm_engines.bundle import Bundle, load_bundle
from lvdm_engines.errors import one_line
from lvdm_engines.manifest import GraphFacts, Manifest, ModelFacts, Provenance

_WIDTH = 80
_LABEL = 12
_QUALITY_LINES = 4
_COLUMNS = ("graphs", "file", "type", "MB", "params", "GFLOP", "error")


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
    """Return a bundle's description as text, a line for every graph file and plan.

    Raises BundleError.
    """
    bundle = load_bundle(path_or_name)
    manifest = bundle.manifest
    lines = [
        f"{one_line(manifest.name, 100)} ({bundle.path})",
        *_model(manifest.model),
        *_text(manifest),
        *_row("weights", _weights(manifest.provenance)),
        "",
        *_table([_COLUMNS, *_graphs(bundle)]),
        "(GFLOP of one run at batch 1; error: largest difference from torch, relative)",
    ]
    plans = {plan.path: plan for listed in stored_plans(bundle).values() for plan in listed}
    for plan in plans.values():
        lines += _row("compiled", _plan(plan))
    if manifest.quality:
        lines += ["", *_row("quality", _quality(manifest.quality), _QUALITY_LINES)]
    return "\n".join(lines)


def _model(model: ModelFacts) -> list[str]:
    latent, schedule = model.latent, model.schedule
    clips = [
        f"{name} {clip}"
        for name in ("short", "predict", "interpolate")
        for clip in model.clips(name)
    ]
    few = f"; a student of {model.calls} calls" if model.calls else ""
    return [
        *_row("frames", f"{_by(model.frame_size)}, {model.frames_per_latent} per latent"),
        *_row(
            "latents",
            f"{latent.channels}×{_by(latent.size)}, scale {latent.scale:.4g}, "
            f"shift {latent.shift:.4g}; decode window {model.decode_window}",
        ),
        *_row("clips", f"{', '.join(clips)} latents{few}"),
        *_row(
            "schedule",
            f"{schedule.kind}, {schedule.steps} steps, beta {schedule.beta_start} to "
            f"{schedule.beta_end}{' without a rest of signal' if schedule.zero_snr else ''}, "
            f"{model.noise_levels or 'no'} noise levels",
        ),
    ]


def _text(manifest: Manifest) -> list[str]:
    if manifest.model.context is None:
        return []
    told = f"prompts of {manifest.model.context.tokens} tokens"
    if manifest.tokenizer is not None:
        told += f", of {manifest.tokenizer.vocabulary} known"
    return _row("text", told)


def _weights(origin: Provenance) -> str:
    """Say which checkpoints the weights are from, each digest once, and what exported them."""
    digests = origin.checkpoint_sha256
    if isinstance(digests, str):
        sources = f"checkpoint {digests[:8]}"
    else:
        users: dict[str, list[str]] = {}
        for name, digest in digests.items():
            users.setdefault(digest[:8], []).append(name)
        sources = ", ".join(f"{digest} ({', '.join(names)})" for digest, names in users.items())
    kind = "EMA" if origin.ema else "plain"
    return f"{kind}: {sources}; by lvdm-rt {origin.lvdm_rt}, torch {origin.torch or 'unknown'}"


def _graphs(bundle: Bundle) -> list[tuple[str, ...]]:
    """Return a row of the table for every graph file."""
    files: dict[str, list[str]] = {}
    for name, graph in bundle.manifest.graphs.items():
        files.setdefault(graph.file, []).append(name)
    return [_graph(bundle, names, bundle.manifest.graphs[names[0]]) for names in files.values()]


def _graph(bundle: Bundle, names: list[str], graph: GraphFacts) -> tuple[str, ...]:
    error = bundle.manifest.worst_error(names)
    return (
        " ".join(names),
        one_line(graph.file, 60),
        graph.precision,
        f"{bundle.graph(names[0]).bytes / 1e6:.1f}",
        "?" if graph.parameters is None else f"{graph.parameters / 1e6:.2f}M",
        "?" if graph.gflop is None else f"{graph.gflop:.2f}",
        "?" if error is None else f"{error:.1e}",
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Align columns: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = _COLUMNS.index("MB")
    return [
        "  ".join(
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _plan(plan: CompiledPlan) -> str:
    made = plan.facts.fingerprint
    return (
        f"{made.graph} by {made.library} {made.version} for {made.gpu} ({made.capability}), "
        f"{made.precision}, {plan.facts.bytes / 1e6:.1f} MB"
    )


def _quality(quality: Mapping[str, Any]) -> str:
    """List numbers before remarks, which may be long."""
    ranked = sorted(quality.items(), key=lambda item: isinstance(item[1], str))
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in ranked)


def _row(label: str, text: str, most: int | None = None) -> list[str]:
    return textwrap.wrap(
        f"  {label:<{_LABEL - 2}}{one_line(text)}",
        _WIDTH,
        subsequent_indent=" " * _LABEL,
        max_lines=most,
        placeholder=" … (--json shows all)",
        break_on_hyphens=False,
    )


def _by(size: tuple[int, int]) -> str:
    return "×".join(str(n) for n in size)
