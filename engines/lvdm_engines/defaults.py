"""How a bundle's model is sampled where nobody asks for anything else: part of its manifest.

Knows names and limits of settings; nothing of samplers or models.
"""

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

# No model is larger, and numbers beyond would take all memory before anything could be said.
Count = Annotated[int, Meta(ge=1, le=1 << 20)]
SamplerName = Literal["ddpm", "ddim", "dpmpp_2m", "distilled"]
SAMPLER_NAMES: tuple[SamplerName, ...] = get_args(SamplerName)


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named choice of sampling settings; what is None stays at the default.

    Noise level -1 leaves conditions unperturbed.
    """

    sampler: SamplerName | None = None
    steps: Count | None = None
    eta: Annotated[float, Meta(ge=0)] | None = None
    guidance: Annotated[float, Meta(ge=0, le=1000)] | None = None
    noise_level: Annotated[int, Meta(ge=-1)] | None = None
    refine: Annotated[int, Meta(ge=0, le=1000)] | None = None


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sampling settings for callers who ask for nothing else.

    Guidance 0 is off; noise level -1, or None, leaves conditions unperturbed; refine 0 leaves
    keyframes as they were sampled. Guidance is over given frames, text guidance over the prompt;
    where a model that reads text has no text guidance, its guidance is over the prompt. Overlap
    counts the latents that neighbouring decode windows share, None is half a window.
    """

    sampler: SamplerName = "ddim"
    steps: Count = 50
    eta: Annotated[float, Meta(ge=0)] = 1.0
    guidance: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    noise_level: Annotated[int, Meta(ge=-1)] | None = None
    refine: Annotated[int, Meta(ge=0, le=1000)] = 0
    fps: Annotated[float, Meta(ge=0.1, le=1000)] = 8.0  # as videos can have
    presets: dict[str, Preset] = {}
    text_guidance: Annotated[float, Meta(ge=0, le=1000)] | None = None
    overlap: Annotated[int, Meta(ge=0, le=2048)] | None = None

    def misfit(self, calls: int | None) -> str:
        """Say how the sampler differs from what a model's student learnt, its `calls`, or ""."""
        if self.sampler != "distilled" or self.steps == calls:
            return ""
        learnt = f"its student learnt {calls}" if calls else "it has no student"
        return f"the model's defaults are {self.steps} steps of sampler distilled, but {learnt}"
