"""What clients say and are told: the fields of a request, and a job as the object `video`.

The names are those of the OpenAI API and of the open servers that extend it. A field that is not
known is refused, as that API does: a misspelt `num_frames` would else make another video.
"""

from typing import Any

import msgspec

from lvdm_engines.errors import LvdmError, quoted
from lvdm_engines.manifest import Manifest
from lvdm_rt.checks import check_number, check_range
from lvdm_rt.options import GenerateOptions, Settings
from lvdm_rt.presets import presets_of
from lvdm_rt.serve.jobs import JobError, Status, VideoJob
from lvdm_rt.serve.refusals import RefusedError

_LONGEST_SECONDS = 1e7


class VideoRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /v1/videos`; numbers may come as text, as forms have them."""

    prompt: str | None = None
    negative_prompt: str | None = None
    model: str | None = None
    seconds: float | None = None
    num_frames: int | None = None
    fps: float | None = None
    size: str | None = None
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    preset: str | None = None
    exact: bool = False


class VideoObject(msgspec.Struct, kw_only=True):
    """The object `video`; `settings` are those of the sidecar, all of them."""

    id: str
    object: str = "video"
    model: str
    status: Status
    progress: int
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None
    prompt: str | None
    seconds: str
    size: str
    num_frames: int
    fps: float
    seed: int
    continues_video: bool
    seconds_to_first_frame: float | None
    seconds_to_completion: float | None
    error: JobError | None
    remixed_from_video_id: None = None
    settings: Settings


def parse_request(fields: object) -> VideoRequest:
    """Return the request that decoded JSON, or the fields of a form, mean. Raises RefusedError."""
    if not isinstance(fields, dict):
        raise RefusedError(f"got {quoted(fields)}, expected one JSON object")
    unknown = sorted(set(fields) - set(VideoRequest.__struct_fields__))
    if unknown:
        raise RefusedError(
            f"got the unknown parameter {quoted(unknown[0])}, expected only "
            f"{', '.join(VideoRequest.__struct_fields__)}, input_reference",
            code="unknown_parameter",
            param=str(unknown[0])[:60],
        )
    try:
        return msgspec.convert(fields, VideoRequest, strict=False)
    except msgspec.ValidationError as err:
        raise RefusedError(err, code="invalid_type") from err


def options_of(asked: VideoRequest, manifest: Manifest, seed: int) -> GenerateOptions:
    """Return the options that a request means for a model; `seed` is taken if it names none.

    Raises RefusedError for another model or size, and OptionsError.
    """
    if asked.model not in (None, manifest.name):
        raise RefusedError(
            f"got model {quoted(asked.model)}, but this server has {manifest.name}; ask for that, "
            "or leave it out",
            404,
            "model_not_found",
            param="model",
        )
    if asked.size not in (None, frame_size(manifest)):
        raise RefusedError(
            f"got size {quoted(asked.size)}, but {manifest.name} makes {frame_size(manifest)}; ask "
            "for that, or leave it out",
            param="size",
        )
    weight = None
    if asked.guidance_scale is not None:
        check_number("guidance_scale", asked.guidance_scale, 1, 1001)
        weight = round(asked.guidance_scale - 1, 9)  # 1.3 means --guidance 0.3
    reads_text = manifest.model.context is not None
    return GenerateOptions(
        frames=_frames(asked, manifest),
        seed=seed if asked.seed is None else asked.seed,
        fps=asked.fps,
        steps=asked.num_inference_steps,
        preset=asked.preset,
        exact=asked.exact,
        guidance=None if reads_text else weight,
        text_guidance=weight if reads_text else None,
        **_texts(asked, manifest),
    )


def model_facts(manifest: Manifest, most: int) -> dict[str, Any]:
    """Return what a client can know of a model that makes videos of `most` frames at most."""
    return {
        "size": frame_size(manifest),
        "fps": manifest.defaults.fps,
        "frames": GenerateOptions().frames,
        "max_frames": most,
        "steps": manifest.defaults.steps,
        "presets": presets_of(manifest),
        "reads_text": manifest.model.context is not None,
        "previews": manifest.preview is not None,
    }


def _frames(asked: VideoRequest, manifest: Manifest) -> int:
    if asked.seconds is not None and asked.num_frames is not None:
        raise RefusedError("got both seconds and num_frames; leave one out", param="seconds")
    if asked.num_frames is not None:
        return asked.num_frames
    if asked.seconds is None:
        return GenerateOptions().frames
    fps = manifest.defaults.fps if asked.fps is None else asked.fps
    check_number("seconds", asked.seconds, 0, _LONGEST_SECONDS)
    check_number("fps", fps, 0.1, 1000)
    frames = round(asked.seconds * fps)
    check_range("num_frames", frames, 1, GenerateOptions().frames * 10**6)
    return frames


def _texts(asked: VideoRequest, manifest: Manifest) -> dict[str, Any]:
    """Return what is told; clients that must send a prompt may send none in an empty one."""
    told = {"prompt": asked.prompt, "negative_prompt": asked.negative_prompt}
    if manifest.model.context is not None:
        return told
    for name, text in told.items():
        if text and text.strip():
            raise RefusedError(
                f"got {name} {quoted(text)}, but {manifest.name} reads no text; send it empty, or "
                "serve a model that does (lvdm-rt serve --bundle sky)",
                code="model_reads_no_text",
                param=name,
            )
    return {}


def frame_size(manifest: Manifest) -> str:
    """Return the size of a model's frames as WIDTHxHEIGHT."""
    height, width = manifest.model.frame_size
    return f"{width}x{height}"


def video_object(job: VideoJob, progress: int) -> VideoObject:
    """Return a job as clients see it; `progress` is that of one that is being made."""
    settings = job.settings
    completed = job.status == "completed"
    return VideoObject(
        id=job.id,
        model=job.model,
        status=job.status,
        progress=100 if completed else progress,
        created_at=int(job.created),
        started_at=None if job.started is None else int(job.started),
        completed_at=int(job.ended) if completed and job.ended is not None else None,
        expires_at=None if job.expires is None else int(job.expires),
        prompt="; ".join(text for _, text in settings.prompts) if settings.prompts else None,
        seconds=f"{settings.frames / settings.fps:.6g}",
        size=job.size,
        num_frames=settings.frames,
        fps=settings.fps,
        seed=settings.seed,
        continues_video=job.condition is not None,
        seconds_to_first_frame=_since(job, job.first_frame),
        seconds_to_completion=_since(job, job.ended) if completed else None,
        error=job.error,
        settings=settings,
    )


def _since(job: VideoJob, moment: float | None) -> float | None:
    return None if moment is None else round(moment - job.created, 3)


def job_error(err: Exception) -> JobError:
    """Say why a job failed without a path, or what stands in the server's log."""
    code, told = _ERRORS.get(
        type(err).__name__, ("server_error", "the video could not be made; the log says why")
    )
    return JobError(code, told)


_ERRORS = {
    "DeviceMemoryError": ("out_of_memory", "the machine has too little memory for this video"),
    "MemoryError": ("out_of_memory", "the machine has too little memory for this video"),
    "NumericsError": (
        "numerics",
        "the network returned NaN or infinity; ask for more steps or less guidance",
    ),
    "VideoError": ("not_written", "the video could not be written; the log says why"),
    "WorkError": ("not_written", "the video could not be kept; the log says why"),
}


def as_refusal(err: LvdmError) -> RefusedError:
    """Return the answer for options that the model cannot meet."""
    return err if isinstance(err, RefusedError) else RefusedError(err)
