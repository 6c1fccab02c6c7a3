"""Bundles and diagnoses as lines of text for a terminal."""

from collections.abc import Iterator

from lvdm_engines.bundle import Bundle
from lvdm_rt.commands.doctor import Check, Diagnosis


def bundle_lines(bundle: Bundle) -> Iterator[str]:
    """Yield what a bundle is, one fact a line."""
    manifest = bundle.manifest
    model, defaults = manifest.model, manifest.defaults
    height, width = model.frame_size
    latent = model.latent
    yield f"{manifest.name}  ({bundle.path})"
    yield f"  frames      {height} × {width}, {defaults.fps:g} per second"
    yield (
        f"  latents     {latent.channels} × {latent.size[0]} × {latent.size[1]},"
        f" {model.frames_per_latent} frames each, decoded {model.decode_window} at a time"
    )
    schedule = model.schedule
    yield (
        f"  schedule    {schedule.kind}, {schedule.steps} steps,"
        f" beta {schedule.beta_start:g} to {schedule.beta_end:g}"
    )
    if model.noise_levels:
        yield f"  noise       levels 0 to {model.noise_levels - 1}"
    yield (
        f"  defaults    {defaults.sampler}, {defaults.steps} steps, eta {defaults.eta:g},"
        f" guidance {defaults.guidance:g}, conditions {_perturbed(defaults.noise_level)}"
    )
    for name, facts in manifest.graphs.items():
        size = sum((bundle.path / file).stat().st_size for file in facts.files) / 1e6
        yield f"  {name:<12}{facts.file}, {facts.precision}, {size:.1f} MB{_parity(bundle, name)}"
    for name, value in manifest.quality.items():
        yield f"  quality     {name}: {value}"
    made = manifest.provenance
    yield f"  made by     lvdm-rt {made.lvdm_rt}{', EMA weights' if made.ema else ''}"


def _parity(bundle: Bundle, graph: str) -> str:
    found = bundle.manifest.parity.get(graph)
    if not found:
        return ""
    return ", parity " + ", ".join(f"{key} {value}" for key, value in found.items())


def diagnosis_lines(found: Diagnosis) -> Iterator[str]:
    """Yield a diagnosis: what works, and for what does not the reason and the way out."""
    yield f"python {found.python} on {found.machine}, {found.cpu_threads} CPU threads"
    groups = {
        "packages": found.packages,
        "GPUs": found.gpus,
        "backends": found.backends,
        "formats": found.encoders,
        "bundles": found.bundles,
    }
    for title, checks in groups.items():
        yield f"{title}:"
        for check in checks:
            yield _check_line(check)
        if not checks:
            yield "  none"


def _check_line(check: Check) -> str:
    sign = "ok" if check.problem is None else "--"
    detail = check.problem or check.version or ""
    return f"  {sign}  {check.name:<14}{detail}".rstrip()


def _perturbed(level: int | None) -> str:
    return "unperturbed" if level is None or level < 0 else f"perturbed to level {level}"
