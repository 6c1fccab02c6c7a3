"""Which files and directories a job makes; imports nothing heavy."""

from pathlib import Path

from lvdm_engines.errors import OptionsError


def output_names(out: str, videos: int) -> list[str]:
    """Return where each video goes.

    One video goes to `out` itself, several to `sky-000.mp4`, `sky-001.mp4` and so on.
    Raises OptionsError for several videos to standard output.
    """
    if videos == 1:
        return [out]
    if out == "-":
        raise OptionsError(f"{videos} videos cannot share standard output; give a file name")
    path = Path(out)
    digits = max(3, len(str(videos - 1)))
    slash = "/" if out.endswith("/") else ""
    return [
        f"{path.with_name(f'{path.stem}-{k:0{digits}d}{path.suffix}')}{slash}"
        for k in range(videos)
    ]


def work_path(out: str) -> Path | None:
    """Return the directory of finished latents: `.sky.mp4.work` beside `sky.mp4`; none for `-`."""
    return None if out == "-" else Path(out).with_name(f".{Path(out).name}.work")


def holds_clips(work: Path | None) -> bool:
    """Tell whether a work directory holds anything that is worth resuming from."""
    return work is not None and any(work.glob("video-*/*.npy"))
