"""Which network makes the clips of a stage, by which sampler, and at which timesteps it is called.

Knows settings and schedules; nothing of clips or sessions.
"""

from lvdm_engines.defaults import SamplerName
from lvdm_rt.diffusion.noise import Stage
from lvdm_rt.diffusion.sampler import SAMPLERS
from lvdm_rt.diffusion.schedule import Schedule, Timesteps, few_timesteps, karras_timesteps
from lvdm_rt.options import Settings
from lvdm_rt.presets import TEACHER_CALLS

REFINE_FROM = 0.1  # of the trained timesteps: how much noise the second pass adds
_DENOISER = {
    Stage.PREDICT: "predict",
    Stage.INFILL: "interpolate",
    Stage.SHORT: "short",
    Stage.REFINE: "interpolate",
}


def denoiser(settings: Settings, stage: Stage) -> str:
    """Return the graph that makes the clips of a stage.

    Predicted clips go on from each other, and what a student leaves out would add up: with one,
    these few are its teacher's.
    """
    student = settings.sampler == "distilled" and stage is not Stage.PREDICT
    return "distilled" if student else _DENOISER[stage]


def sampler_of(settings: Settings, stage: Stage) -> SamplerName:
    """Return the sampler of a stage; beside a student, and to refine, the one of fewest calls."""
    if settings.sampler == "distilled":
        return "dpmpp_2m" if stage is Stage.PREDICT else "distilled"
    return "dpmpp_2m" if stage is Stage.REFINE else settings.sampler


def visited(settings: Settings, schedule: Schedule, stage: Stage) -> Timesteps:
    """Return the timesteps at which a clip's network is called, descending.

    A student knows no others than its own, and refines by the last of them.
    """
    if denoiser(settings, stage) == "distilled":
        own = few_timesteps(schedule, settings.steps)
        return own[-1:] if stage is Stage.REFINE else own
    if stage is Stage.REFINE:
        return karras_timesteps(schedule, settings.refine, int(REFINE_FROM * schedule.steps))
    steps = settings.steps * (TEACHER_CALLS if settings.sampler == "distilled" else 1)
    return SAMPLERS[sampler_of(settings, stage)].timesteps(schedule, min(steps, schedule.steps))
