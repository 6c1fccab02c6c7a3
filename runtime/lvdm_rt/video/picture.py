"""From a decoded frame to pixels as they are meant to be seen: upright, cropped and resized.

Every reading path comes through here, so that training and continuing see the same picture.
"""

from contextlib import suppress
from fractions import Fraction

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from lvdm_rt.video.spec import Frames

# Without these FFmpeg truncates, and a film that is read and written again gets darker each time.
_EXACT = 0x40000 | 0x2000  # SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT: PyAV 17 has no names for them
_AREA, _BICUBIC = int(Interpolation.AREA) | _EXACT, int(Interpolation.BICUBIC) | _EXACT


def fit(frame: VideoFrame, size: tuple[int, int], pixel_aspect: float) -> Frames:
    """Return (h, w, 3): cropped around the centre to the shape of `size`, resized, upright.

    `size` is (height, width) as it is seen; `pixel_aspect` the width of a stored pixel by its
    height.
    """
    matrix = _matrix(frame)
    height, width = size[::-1] if _is_turned(matrix) else size
    crop = centre_crop(to_pixels(frame), width / height / pixel_aspect)
    return _upright(resize(crop, (height, width)), matrix)


def to_pixels(frame: VideoFrame) -> Frames:
    """Return the frame as (h, w, 3)."""
    exact = frame.reformat(format="rgb24", interpolation=_BICUBIC)
    return np.asarray(exact.to_ndarray(), np.uint8)


def centre_crop(pixels: Frames, aspect: float | Fraction) -> Frames:
    """Return the largest centred part whose width is `aspect` times its height."""
    height, width = pixels.shape[:2]
    kept_height = max(1, min(height, round(width / aspect)))
    kept_width = max(1, min(width, round(height * aspect)))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return pixels[top : top + kept_height, left : left + kept_width]


def resize(pixels: Frames, size: tuple[int, int]) -> Frames:
    """Bring (h, w, 3) to `size` (height, width): by averaging if it shrinks, else bicubically."""
    if pixels.shape[:2] == size:
        return pixels
    shrinks = pixels.shape[0] >= size[0] and pixels.shape[1] >= size[1]
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    method = _AREA if shrinks else _BICUBIC
    resized = frame.reformat(width=size[1], height=size[0], interpolation=method)
    return np.asarray(resized.to_ndarray(), np.uint8)


Matrix = tuple[int, int, int, int]


def _matrix(frame: VideoFrame) -> Matrix:
    """Return a, b, c, d of the display matrix: x' = a x + c y, y' = b x + d y, both downwards."""
    data = _SideData(frame).get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    rows = np.frombuffer(bytes(data), np.int32)
    return int(rows[0]), int(rows[1]), int(rows[3]), int(rows[4])


class _SideData(SideDataContainer):
    """What stands beside a frame, up to the first thing that this PyAV does not know.

    Its own gives nothing then; FFmpeg puts the matrix before a photo's EXIF, which is unknown.
    """

    def __init__(self, frame: VideoFrame) -> None:
        with suppress(ValueError):
            super().__init__(frame)  # type: ignore[call-arg] # which its stubs leave out


def _is_turned(matrix: Matrix) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _upright(pixels: Frames, matrix: Matrix) -> Frames:
    """Turn and mirror (h, w, 3) as the nearest of the eight ways to lay down a picture."""
    a, b, c, d = matrix
    if _is_turned(matrix):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
