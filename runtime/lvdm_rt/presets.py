"""Named choices of sampling settings: those of every model, and a model's own before them."""

from lvdm_engines.defaults import Preset
from lvdm_engines.manifest import Manifest
from lvdm_rt.checks import check_one_of

PRESETS = {
    "paper": Preset(sampler="ddpm", refine=0),
    "balanced": Preset(sampler="dpmpp_2m", steps=10, refine=2),
    "fast": Preset(sampler="dpmpp_2m", steps=6, refine=1),
}

TEACHER_CALLS = 2  # of a clip that others go on from, for each call of a student
_REFINES = 4  # calls: the last of fewer begins in so much noise that it draws keyframes anew


def presets_of(manifest: Manifest) -> dict[str, Preset]:
    """Return all presets of a model by name; where it has a student, that one is `fast`."""
    calls, presets = manifest.model.calls, PRESETS | manifest.defaults.presets
    if calls is None or "fast" in manifest.defaults.presets:
        return presets
    refine = 1 if calls >= _REFINES else 0
    return presets | {"fast": Preset(sampler="distilled", steps=calls, refine=refine)}


def find_preset(name: str | None, manifest: Manifest) -> Preset:
    """Return a preset by its name, an empty one for None. Raises OptionsError."""
    if name is None:
        return Preset()
    presets = presets_of(manifest)
    check_one_of("preset", name, tuple(presets))
    return presets[name]
