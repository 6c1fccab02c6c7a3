"""Prompts as they are asked for: one text for a video, or several along it.

Knows which texts can be read at all; nothing of tokens, sessions or clips.
"""

import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from lvdm_engines.errors import OptionsError, quoted
from lvdm_engines.manifest import Manifest
from lvdm_rt.checks import check_range

Prompts = tuple[tuple[int, str], ...]
"""What a video shows: (first frame, text) one after the other, the first from frame 0 on."""

ASKED = ("prompt", "prompts", "negative_prompt", "text_guidance")  # options of models with text
LONGEST = 10_000  # characters; no encoder reads a tenth of it
LAST_FRAME = 10_000_000


def default_guidance(manifest: Manifest) -> tuple[float, float | None]:
    """Return a model's weights over given frames and over text; None where no text is read."""
    told = manifest.defaults
    if manifest.model.context is None:
        return told.guidance, None
    if told.text_guidance is None:  # made when the models with text were given no frames
        return 0.0, told.guidance
    return told.guidance, told.text_guidance


def resolve_text(asked: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Return what the videos of a model show and what they do not; nothing if it reads no text.

    `asked` has the options in `ASKED`, None where nobody asked.

    Raises OptionsError for a text that nobody can have meant, frames that do not ascend, and a text
    for a model that reads none.
    """
    if manifest.model.context is None:
        for name in ASKED:
            if asked[name] is not None:
                raise OptionsError(
                    f"got {name} {quoted(asked[name])}, but {manifest.name} was not trained with "
                    "text; leave it out"
                )
        return {}
    if asked["prompt"] is not None and asked["prompts"] is not None:
        raise OptionsError("got both prompt and prompts; put all of them into prompts")
    prompts = asked["prompts"] if asked["prompt"] is None else [(0, asked["prompt"])]
    negative = asked["negative_prompt"]
    if negative is not None:
        check_text("negative_prompt", negative)
    told = None if prompts is None else _checked(prompts)
    return {"prompts": told, "negative_prompt": negative or ""}


def check_prompted(prompts: Prompts | None, manifest: Manifest) -> None:
    """Raise OptionsError where a model that reads text is told none."""
    if prompts is None and manifest.model.context is not None:
        raise OptionsError(
            f"got no prompt, but {manifest.name} is told what to show; give one, or '' for none"
        )


def _checked(prompts: Any) -> Prompts:
    if not isinstance(prompts, list | tuple) or not prompts:
        raise OptionsError(f"got prompts {quoted(prompts)}, expected pairs of a frame and a text")
    told = tuple(_pair(entry) for entry in prompts)
    frames = [frame for frame, _ in told]
    if frames[0] != 0 or any(later <= frame for frame, later in pairwise(frames)):
        raise OptionsError(
            f"got prompts from frames {quoted(frames)} on, expected 0 first and then each later "
            "than the one before"
        )
    return told


def check_text(name: str, text: Any) -> None:
    """Raise OptionsError for what is no text, too long, or holds what cannot be shown."""
    if not isinstance(text, str):
        raise OptionsError(f"got {name} {quoted(text)}, expected a text")
    if len(text) > LONGEST:
        raise OptionsError(
            f"got {name} of {len(text)} characters, expected at most {LONGEST}; shorten it"
        )
    for character in text:
        if unicodedata.category(character) == "Cs":  # how Python keeps bytes that are no text
            raise OptionsError(f"got {name} {quoted(text)}, which is not UTF-8; type it again")
        if unicodedata.category(character) == "Cc" and character not in "\t\n\r":
            raise OptionsError(
                f"got {name} {quoted(text)} with the control character U+{ord(character):04X}; "
                "take it out"
            )


def _pair(entry: Any) -> tuple[int, str]:
    if not isinstance(entry, list | tuple) or len(entry) != 2:
        raise OptionsError(f"got {quoted(entry)} in prompts, expected a frame and a text")
    frame, text = entry
    check_range("the frame of a prompt", frame, 0, LAST_FRAME)
    check_text("prompt", text)
    return frame, text
