"""Named choices of sampling settings: those of every model, and a model's own before them."""

from lvdm_engines.defaults import Preset
from lvdm_engines.manifest import Manifest
from lvdm_rt.checks import check_one_of

PRESETS = {
    "paper": Preset(sampler="ddpm", refine=0),
    "balanced": Preset(sampler="dpmpp_2m", steps=10, refine=2),
    "fast": Preset(sampler="dpmpp_2m", steps=6, refine=1),
}


def presets_of(manifest: Manifest) -> dict[str, Preset]:
    """Return all presets of a model by name; where it has a student, that one is `fast`."""
    calls = manifest.model.calls
    student = {"fast": Preset(sampler="distilled", steps=calls, refine=1)} if calls else {}
    return PRESETS | student | manifest.defaults.presets


def find_preset(name: str | None, steps: int | None, manifest: Manifest) -> Preset:
    """Return a preset by its name, an empty one for None; the teacher's for steps of its own.

    Raises OptionsError.
    """
    if name is None:
        return Preset()
    presets = presets_of(manifest)
    check_one_of("preset", name, tuple(presets))
    if steps not in (None, manifest.model.calls) and presets[name].sampler == "distilled":
        return PRESETS.get(name, PRESETS["fast"])
    return presets[name]
