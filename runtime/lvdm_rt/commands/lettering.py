"""Letters of three by five dots, for names and numbers in pictures.

PyAV's wheels have no FFmpeg filter that draws text, and a font library would be the largest part of
this package. Knows pixels only.
"""

import numpy as np

from lvdm_rt.video import Frames

HEIGHT = 16  # pixels of a line, its margins included
_DOT, _ADVANCE, _MARGIN = 2, 8, 3  # pixels
_GROUND, _INK = 24, 230  # grey
# A letter, and its rows from the top as octal digits: 4 is the left dot, 2 the middle, 1 the right.
_LETTERS = {
    word[0]: word[1:]
    for word in (  # noqa: SIM905 - a table
        "A25755 B65656 C34443 D65556 E74647 F74644 G34553 H55755 I72227 J11152 K55655 L44447 "
        "M57755 N65555 O25552 P65644 Q25573 R65655 S34216 T72222 U55557 V55552 W55775 X55255 "
        "Y55222 Z71247 075557 126227 261247 361216 455711 574616 634757 771244 875757 975716 "
        ".00002 ,00024 :02020 -00700 _00007 /11244 #57575 +02720 (12221 )42224 %51245 @25743 "
        "'22000 ?61202 =07070"
    ).split()
}


def ground(height: int, width: int) -> Frames:
    """Return an empty, dark picture: uint8 (height, width, 3)."""
    return np.full((height, width, 3), _GROUND, np.uint8)


def line(width: int, text: str, ending: str = "") -> Frames:
    """Return a line of text as a picture: uint8 (HEIGHT, width, 3).

    Letters are capitals, and what is no letter of the alphabet above is a question mark. Where the
    line is too short, the end of `text` gives way to `ending`.
    """
    room = (width - _MARGIN) // _ADVANCE
    words = (text[: max(0, room - len(ending))] + ending)[:room]
    picture = ground(HEIGHT, width)
    for place, letter in enumerate(words.upper()):
        if letter != " ":
            left = _MARGIN + place * _ADVANCE
            dots = _dots(letter)  # (10, 6)
            picture[_MARGIN : _MARGIN + len(dots), left : left + dots.shape[1]][dots] = _INK
    return picture


def _dots(letter: str) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    rows = _LETTERS.get(letter, _LETTERS["?"])
    small = np.array([[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in rows], bool)
    return small.repeat(_DOT, 0).repeat(_DOT, 1)
