"""The paper's experiment on a model: what decides whether long videos keep their quality.

Section 4.4: hierarchical against autoregressive generation, perturbation of conditions, guidance;
and the sampler. Knows which settings answer which question; nothing of measuring.
"""

from collections.abc import Mapping, Sequence

from lvdm_engines.contract import predicts_neighbours
from lvdm_engines.errors import ConfigError
from lvdm_engines.manifest import Manifest
from lvdm_rt.options import NO_LEVEL
from lvdm_rt.text.prompts import default_guidance
from lvdm_tools.quality.subjects import Asked

QUESTIONS = ("modes", "perturbation", "guidance", "samplers")
FRAMES, VIDEOS, EVERY = 1024, 16, 5
_LEVELS = (0.1, 0.4)  # of the trained noise levels, beside none
_GUIDANCE = (0, 1)
_SAMPLERS: tuple[dict[str, object], ...] = (
    {"preset": "fast"},
    {"sampler": "ddim", "steps": 10, "eta": 0},
)


def questions(
    models: Mapping[str, tuple[str, Manifest]],
) -> dict[str, list[Asked]]:
    """Return the subjects to compare for each question; those that occur twice are equal.

    `models` are the bundles and their manifests by mode, hierarchical and autoregressive or one of
    them.

    Raises ConfigError: a model that does not have its mode.
    """
    for mode, (bundle, manifest) in models.items():
        _check(mode, bundle, manifest)
    usual = [_asked(mode, bundle) for mode, (bundle, _) in models.items()]
    perturbed = [one for mode, model in models.items() for one in _perturbed(mode, *model)]
    guided = [one for mode, model in models.items() for one in _guided(mode, *model)]
    mode, (bundle, _) = next(iter(models.items()))
    sampled = [usual[0], *(_asked(mode, bundle, **settings) for settings in _SAMPLERS)]
    found = zip(QUESTIONS, (usual, perturbed, guided, sampled), strict=True)
    return {question: subjects for question, subjects in found if len(subjects) > 1}


def _check(mode: str, bundle: str, manifest: Manifest) -> None:
    predict = manifest.model.predict
    if mode == "hierarchical" and manifest.model.interpolate is None:
        raise ConfigError(
            f"{bundle} has no interpolate graph to fill gaps between keyframes, expected a model "
            "with a hierarchical mode"
        )
    if mode == "autoregressive" and not predicts_neighbours(manifest):
        stride = "no predict graph" if predict is None else f"one of stride {predict.stride}"
        raise ConfigError(
            f"{bundle} has {stride}, expected one that was trained at stride 1: others make things "
            "move faster in the autoregressive mode"
        )


def _perturbed(mode: str, bundle: str, manifest: Manifest) -> Sequence[Asked]:
    levels = manifest.model.noise_levels
    if not levels:
        return [_asked(mode, bundle)]
    usual = manifest.defaults.noise_level
    usual = NO_LEVEL if usual is None else usual
    asked = (NO_LEVEL, *(int(share * levels) for share in _LEVELS))
    others = (_asked(mode, bundle, noise_level=level) for level in asked if level != usual)
    return [_asked(mode, bundle), *others]


def _guided(mode: str, bundle: str, manifest: Manifest) -> Sequence[Asked]:
    usual, _ = default_guidance(manifest)
    others = (_asked(mode, bundle, guidance=weight) for weight in _GUIDANCE if weight != usual)
    return [_asked(mode, bundle), *others]


def _asked(mode: str, bundle: str, **settings: object) -> Asked:
    told = ",".join(f"{name}={value}" for name, value in settings.items())
    return Asked(f"{mode}, {told}" if told else mode, bundle, {"mode": mode, **settings})
