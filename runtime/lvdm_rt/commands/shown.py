"""Bundles and diagnoses as lines of text that fit a terminal of 80 columns."""

import textwrap
from collections.abc import Iterable, Iterator

from lvdm_engines.bundle import Bundle
from lvdm_engines.defaults import Preset
from lvdm_engines.errors import one_line
from lvdm_engines.manifest import Manifest
from lvdm_rt.commands.doctor import Diagnosis, Finding
from lvdm_rt.presets import presets_of
from lvdm_rt.text.prompts import default_guidance

WIDTH = 80
_INDENT = 12
_QUALITIES = 6  # numbers shown; the rest is in the manifest


def bundle_lines(bundle: Bundle) -> Iterator[str]:
    """Yield what a bundle is, what can be asked of it, and how good it was found to be."""
    manifest = bundle.manifest
    model, defaults = manifest.model, manifest.defaults
    frames, text = default_guidance(manifest)
    (height, width), latent, schedule = model.frame_size, model.latent, model.schedule
    yield f"{one_line(manifest.name)}: {width}×{height} pixels, {defaults.fps:g} frames per second"
    yield f"  {one_line(str(bundle.path))}"
    yield ""
    yield from _entry("modes", ", ".join(_modes(manifest)))
    yield from _entry(
        "defaults",
        f"{defaults.sampler}, {defaults.steps} steps,"
        + (f" eta {defaults.eta:g}," if defaults.sampler == "ddim" else "")
        + (f" {defaults.refine} to refine," if defaults.refine else "")
        + ("" if text is None else f" text guidance {text:g},")
        + f" guidance {frames:g}, conditions {_perturbed(defaults.noise_level)}",
    )
    presets = "; ".join(f"{n}: {_preset(p)}" for n, p in presets_of(bundle.manifest).items())
    yield from _entry("presets", one_line(presets))
    yield from _entry(
        "latents",
        f"{latent.channels}×{latent.size[0]}×{latent.size[1]} for {model.frames_per_latent}"
        f" frames, decoded {model.decode_window} at a time, {bundle.manifest.overlap} of them"
        " shared",
    )
    levels = f", noise levels 0 to {model.noise_levels - 1}" if model.noise_levels else ""
    yield from _entry("trained on", f"{schedule.kind} schedule, {schedule.steps} steps{levels}")
    yield ""
    yield from _graph_lines(bundle)
    yield ""
    numbers = [
        one_line(f"{k.replace('_', ' ')} {v}", 80)
        for k, v in manifest.quality.items()
        if k != "measured_on"
    ]
    if numbers:
        shown = ", ".join(numbers[:_QUALITIES])
        yield from _entry("quality", f"{shown}{', …' if len(numbers) > _QUALITIES else ''}")
        yield from _entry(
            "", "on " + one_line(str(manifest.quality.get("measured_on", "unknown clips")))
        )
    made = manifest.provenance
    ema = ", averaged weights" if made.ema else ""
    yield from _entry("made by", f"lvdm-rt {made.lvdm_rt}{ema}; files are as the manifest says")


def _modes(manifest: Manifest) -> Iterator[str]:
    model = manifest.model
    if model.predict and model.interpolate:
        yield "hierarchical"
    if model.predict:
        yield "autoregressive"
    if model.short:
        yield f"short (up to {model.short.clip * model.frames_per_latent} frames)"


def _preset(preset: Preset) -> str:
    refined = f" and {preset.refine} to refine" if preset.refine else ""
    return f"{preset.sampler}, {preset.steps or 'all'} steps{refined}"


def _graph_lines(bundle: Bundle) -> Iterator[str]:
    """Yield one line a file; graphs that share one stand together."""
    files: dict[str, list[str]] = {}
    for name, facts in bundle.manifest.graphs.items():
        files.setdefault(facts.file, []).append(name)
    width = max(len(one_line(file, 60)) for file in files)
    yield f"  {'file':<{width}}       size  precision  error    graphs"
    for file, names in files.items():
        source = bundle.graph(names[0])
        yield (
            f"  {one_line(file, 60):<{width}}  {source.bytes / 1e6:>6.1f} MB"
            f"  {source.facts.precision:<10} {_worst_error(bundle, names):<8} {', '.join(names)}"
        )


def _worst_error(bundle: Bundle, graphs: Iterable[str]) -> str:
    """Return the largest difference from torch, relative to the largest value."""
    error = bundle.manifest.worst_error(graphs)
    return "unknown" if error is None else f"{error:.1e}"


def diagnosis_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield a diagnosis: what works, and for what does not the reason and the way out."""
    yield f"python {diagnosis.python} on {diagnosis.machine}, {diagnosis.cpu_threads} CPU threads"
    yield ""
    yield from _checks("packages", diagnosis.packages)
    yield from _checks("GPUs", diagnosis.gpus)
    yield from _checks("backends", diagnosis.backends)
    yield from _checks("formats", diagnosis.encoders)
    yield from _checks("bundles", diagnosis.bundles)


def _checks(title: str, checks: Iterable[Finding]) -> Iterator[str]:
    """Yield on one line what works, and on lines of their own what does not."""
    checks = list(checks)
    works = [" ".join(filter(None, (c.name, c.version))) for c in checks if c.problem is None]
    if works or not checks:
        yield from _entry(title, "ok  " + ", ".join(works) if works else "none", hang=4)
    for number, check in enumerate(c for c in checks if c.problem is not None):
        first = title if not works and number == 0 else ""
        yield from _entry(first, f"--  {check.name}: {check.problem}", hang=4)


def _entry(title: str, text: str, hang: int = 0) -> Iterator[str]:
    """Yield a title and its text beside it, wrapped."""
    margin = " " * (2 + _INDENT)
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"  {title:<{_INDENT}}",
        subsequent_indent=margin + " " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _perturbed(level: int | None) -> str:
    return "unperturbed" if level is None or level < 0 else f"perturbed to level {level}"
