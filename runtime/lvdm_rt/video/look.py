"""What a video is before its frames are read: its size as shown, its rate, its length."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from av.stream import Disposition

from lvdm_rt.video.arrays import read_npz
from lvdm_rt.video.film import MAX_PIXELS, open_film
from lvdm_rt.video.reader import PICTURES, ReadSpec, picture_files, read_frames

_ANY = ReadSpec(size=(8, 8), fps=Fraction(8), chunk=1)


@dataclass(frozen=True)
class Look:
    """(height, width) in pixels as shown, and frames per second; None of pictures, which have none.

    A film's pixels are square here, and it is upright.
    """

    size: tuple[int, int]
    fps: Fraction | None


def look(path: Path) -> Look:
    """Look at the first frame of a film, an .npz of the writer, a folder of pictures or a picture.

    Raises VideoError as `read_frames` does.
    """
    next(read_frames(path, _ANY))  # or says what is wrong
    if path.suffix.lower() == ".npz" and path.is_file():
        _, length, frame = next(read_npz(path, MAX_PIXELS))
        return Look((frame.height, frame.width), 1 / length)
    with open_film(picture_files(path)[0] if path.is_dir() else path) as container:
        streams = container.streams.video
        cover = Disposition.attached_pic
        stream = next(s for s in streams if not s.disposition & cover)
        frame = next(container.decode(stream))
        width = round(frame.width * float(stream.sample_aspect_ratio or 1))
        turned = round(frame.rotation / 90) % 2
        size = (width, frame.height) if turned else (frame.height, width)
        still = path.is_dir() or path.suffix.lower() in PICTURES
        return Look(size, None if still else stream.guessed_rate or stream.average_rate)


def length(path: Path, fps: Fraction) -> int:
    """Count the frames that `read_frames` gives at a rate. Raises VideoError as it does."""
    return sum(len(chunk) for chunk in read_frames(path, ReadSpec(size=_ANY.size, fps=fps)))
