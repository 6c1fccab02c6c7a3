"""What the caller asks, and what it means for one model.

`GenerateOptions` is the request: None means the model's own value. `resolve` turns it into
`Settings`, in which everything is concrete. Knows the manifest; nothing of sessions or files.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from lvdm_engines.defaults import Defaults, Preset, SamplerName
from lvdm_engines.errors import OptionsError, quoted
from lvdm_engines.manifest import Manifest
from lvdm_rt.bounds import MAX_BATCH, MAX_FRAMES, MAX_SEED, MAX_VIDEOS
from lvdm_rt.checks import check_number, check_one_of, check_range
from lvdm_rt.diffusion.sampler import SAMPLERS
from lvdm_rt.presets import TEACHER_CALLS, find_preset
from lvdm_rt.text.prompts import ASKED, Prompts, default_guidance, resolve_text

Mode = Literal["hierarchical", "autoregressive", "short"]

MODES: tuple[Mode, ...] = ("hierarchical", "autoregressive", "short")
STEPS = {"ddim": 50, "dpmpp_2m": 10}  # of a sampler that is chosen without a number
NO_LEVEL = -1  # the condition is not perturbed


class GenerateOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for videos; None means what the model's manifest says.

    `frames` counts new frames of each video; `first_video` numbers the first of `videos`, so that
    workers can share one job; `batch_size` is the number of clips in one network call (guidance
    doubles its rows); `overlap` is in latents, half a decode window unless given; `noise_level` -1
    leaves the condition unperturbed; `refine` is the number of network calls of a second pass over
    each keyframe and its neighbours, 0 for none; `fade` is the number of new frames over which the
    look of the last given frame turns into the autoencoder's, a decode window unless given, 0 at
    once and where windows do not overlap; `exact` makes results bit-identical however clips are
    grouped; guidance acts at timesteps of `guidance_interval` (lowest, highest) alone; `prompt`
    stands for `prompts` of one (first frame, text), an empty text for none at all.
    """

    frames: int = 64
    seed: int = 0
    videos: int = 1
    first_video: int = 0
    mode: Mode | None = None
    preset: str | None = None
    sampler: SamplerName | None = None
    steps: int | None = None
    eta: float | None = None
    guidance: float | None = None
    guidance_interval: tuple[int, int] | None = None
    noise_level: int | None = None
    refine: int | None = None
    batch_size: int | None = None
    overlap: int | None = None
    fade: int | None = None
    fps: float | None = None
    exact: bool = False
    prompt: str | None = None
    prompts: Sequence[tuple[int, str]] | None = None
    negative_prompt: str | None = None
    text_guidance: float | None = None


class Settings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A request with every value filled in; see `GenerateOptions`.

    What is None the model has not, or nobody asked for, and is left out of what is written.
    """

    frames: int
    seed: int
    videos: int
    first_video: int
    mode: Mode
    sampler: SamplerName
    steps: int
    eta: float
    guidance: float
    noise_level: int
    refine: int
    batch_size: int
    overlap: int
    fade: int
    fps: float
    exact: bool
    guidance_interval: tuple[int, int] | None = None
    prompts: Prompts | None = None
    negative_prompt: str | None = None
    text_guidance: float | None = None


def resolve(options: GenerateOptions | Settings, manifest: Manifest) -> Settings:
    """Fill in the model's own values and check that the request can be met.

    Settings are what this returned before; for the same model they come back as they are.

    Raises OptionsError for a value out of range, a contradiction, or something that the model
    does not have.
    """
    if isinstance(options, Settings):
        options = _as_options(options)
    model = manifest.model
    _check_counts(options)
    mode = options.mode or _default_mode(manifest)
    check_one_of("mode", mode, MODES)
    if not isinstance(options.exact, bool):
        raise OptionsError(f"got exact {quoted(options.exact)}, expected True or False")
    preset = find_preset(options.preset, manifest)
    sampler, steps, eta = _sampling(options, preset, manifest)
    if sampler == "distilled" and mode == "autoregressive":  # whose clips are all the teacher's
        sampler, steps = "dpmpp_2m", min(TEACHER_CALLS * steps, model.schedule.steps)
    most = 1 if sampler == "distilled" else model.schedule.steps
    overlap = _first(options.overlap, manifest.overlap)
    check_range("overlap", overlap, 0, model.decode_window // 2)
    fade = _fade(options.fade, overlap, model.decode_window * model.frames_per_latent)
    fps = _first(options.fps, manifest.defaults.fps)
    check_number("fps", fps, 0.1, 1000)
    return Settings(
        frames=options.frames,
        seed=options.seed,
        videos=options.videos,
        first_video=options.first_video,
        mode=mode,
        sampler=sampler,
        steps=steps,
        eta=eta,
        **_guidance(options, mode, preset, manifest),
        noise_level=_noise_level(options, preset, manifest),
        refine=_refine(options.refine, mode, preset, manifest, most),
        batch_size=_first(options.batch_size, 4),
        overlap=overlap,
        fade=fade,
        fps=fps,
        exact=options.exact,
        **resolve_text({name: getattr(options, name) for name in ASKED}, manifest),
    )


def _as_options(settings: Settings) -> GenerateOptions:
    told = msgspec.structs.asdict(settings)
    if settings.sampler != "ddim" and settings.eta == 0:  # which nobody may ask for
        del told["eta"]
    return GenerateOptions(**told)


def _guidance(
    options: GenerateOptions, mode: Mode, preset: Preset, manifest: Manifest
) -> dict[str, Any]:
    """Return weights and interval of guidance; a mode without given frames has none over them."""
    frames, text = default_guidance(manifest)
    if mode == "short" and options.guidance:
        way = "leave it out or choose another mode" if text is None else "use text_guidance"
        raise OptionsError(
            f"got guidance {quoted(options.guidance)} in mode short, which has no frames to be "
            f"guided by; {way}"
        )
    weights = {"guidance": _first(options.guidance, preset.guidance, frames)}
    if mode == "short":
        weights["guidance"] = 0.0
    if text is not None:
        weights["text_guidance"] = _first(options.text_guidance, text)
    for name, weight in weights.items():
        check_number(name, weight, 0, 1000, "a number from 0 (off) to 1000")
    interval = options.guidance_interval
    if interval is None:
        return weights
    return {**weights, "guidance_interval": _interval(interval, manifest.model.schedule.steps)}


def _interval(wanted: Any, steps: int) -> tuple[int, int]:
    if not isinstance(wanted, list | tuple) or len(wanted) != 2:
        raise OptionsError(
            f"got guidance_interval {quoted(wanted)}, expected the lowest and the highest timestep"
        )
    low, high = wanted
    check_range("guidance_interval", high, 0, steps - 1)
    check_range("guidance_interval", low, 0, high)
    return low, high


def _fade(wanted: int | None, overlap: int, usual: int) -> int:
    if overlap == 0:  # the last given frame is not decoded together with new ones
        if wanted:
            raise OptionsError(
                f"got fade {quoted(wanted)} with overlap 0, but a fade needs decode windows that "
                "overlap; leave it out"
            )
        return 0
    fade: int = _first(wanted, usual)
    check_range("fade", fade, 0, MAX_FRAMES)
    return fade


def _check_counts(options: GenerateOptions) -> None:
    check_range("frames", options.frames, 1, MAX_FRAMES)
    check_range("seed", options.seed, 0, MAX_SEED)
    check_range("videos", options.videos, 1, MAX_VIDEOS)
    check_range("first_video", options.first_video, 0, MAX_SEED - MAX_VIDEOS)
    if options.batch_size is not None:
        check_range("batch_size", options.batch_size, 1, MAX_BATCH)


def _default_mode(manifest: Manifest) -> Mode:
    if "predict" not in manifest.graphs:
        return "short"
    return "hierarchical" if "interpolate" in manifest.graphs else "autoregressive"


def _sampling(
    options: GenerateOptions, preset: Preset, manifest: Manifest
) -> tuple[SamplerName, int, float]:
    """Return sampler, steps and eta; a sampler brings its own numbers unless some are asked.

    Steps that a student did not learn are taken by its teacher, unless the student is asked for.
    """
    trained, defaults = manifest.model.schedule.steps, manifest.defaults
    if options.sampler and preset.sampler and options.sampler != preset.sampler:
        raise OptionsError(
            f"got sampler {quoted(options.sampler)} with preset {quoted(options.preset)}, which is "
            f"{preset.sampler}; leave one of them out"
        )
    sampler: SamplerName = _first(options.sampler, preset.sampler, defaults.sampler)
    check_one_of("sampler", sampler, tuple(SAMPLERS))
    wanted = preset.steps if options.steps is None else options.steps
    if options.sampler is None and sampler == "distilled":
        sampler = sampler if wanted in (None, manifest.model.calls) else "dpmpp_2m"
    if options.eta is not None and sampler != "ddim":
        raise OptionsError(f"got eta with sampler {sampler}, expected it only with ddim")
    if sampler == "distilled":
        return sampler, _calls(wanted, manifest), 0.0
    if sampler != defaults.sampler:
        defaults = Defaults(sampler=sampler, steps=STEPS.get(sampler, trained))
    # A preset made for long schedules takes all of a short one.
    steps = _first(options.steps, min(_first(preset.steps, defaults.steps), trained))
    check_range("steps", steps, 1, trained)
    if sampler == "ddpm":
        if options.steps not in (None, trained):
            raise OptionsError(
                f"got steps {quoted(options.steps)} with sampler ddpm, which takes all {trained} "
                "steps of the schedule; leave steps out or choose ddim or dpmpp_2m"
            )
        steps = trained
    eta = _first(options.eta, preset.eta, defaults.eta) if sampler == "ddim" else 0.0
    check_number("eta", eta, 0, 1, "0 (deterministic) to 1 (ancestral)")
    return sampler, steps, eta


def _calls(wanted: int | None, manifest: Manifest) -> int:
    """Return the number of steps that a model's student knows, if that was asked."""
    calls = manifest.model.calls
    if calls is None:
        raise OptionsError(f"got sampler distilled, but {manifest.name} has no student; use ddim")
    check_range("steps", _first(wanted, calls), 1, manifest.model.schedule.steps)
    if wanted not in (None, calls):
        raise OptionsError(
            f"got steps {quoted(wanted)} with sampler distilled, whose network learnt {calls}; "
            "leave either out"
        )
    return calls


def _noise_level(options: GenerateOptions, preset: Preset, manifest: Manifest) -> int:
    levels = manifest.model.noise_levels
    wanted = options.noise_level
    if levels is None:
        if wanted not in (None, NO_LEVEL):
            raise OptionsError(
                f"got noise_level {quoted(wanted)}, but {manifest.name} was not trained with "
                "perturbed conditions; leave it out"
            )
        return NO_LEVEL
    level = _first(wanted, preset.noise_level, manifest.defaults.noise_level, NO_LEVEL)
    check_range("noise_level", level, NO_LEVEL, levels - 1)
    return int(level)


def _refine(wanted: int | None, mode: Mode, preset: Preset, manifest: Manifest, most: int) -> int:
    if mode != "hierarchical":
        if wanted:
            raise OptionsError(
                f"got refine {quoted(wanted)} in mode {mode}, which has no keyframes; leave it out"
            )
        return 0
    if wanted is None:
        usual: int = _first(preset.refine, manifest.defaults.refine)
        return min(usual, most)
    check_range("refine", wanted, 0, most)
    return wanted


def _first(*values: Any) -> Any:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)
