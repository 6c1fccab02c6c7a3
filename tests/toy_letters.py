"""A model of arrays that is told what to show: letters are tokens, without any package."""

from types import SimpleNamespace

from msgspec.structs import replace
from toy_arrays import DEFAULTS, MODEL, make_manifest, make_sessions

from lvdm_engines.manifest import ContextFacts
from lvdm_rt import Pipeline

LETTERS = 6  # of a text that are read
PROMPTED = replace(MODEL, context=ContextFacts(tokens=LETTERS, dim=3))
GUIDED = replace(DEFAULTS, text_guidance=3.0)


class LetterTokenizer:
    """The first letters of a text as tokens, the rest cut, what is missing 0."""

    def __init__(self):
        self.texts = []

    def encode(self, text):
        self.texts.append(text)
        ids = [ord(letter) for letter in text[:LETTERS]]
        return SimpleNamespace(
            ids=ids + [0] * (LETTERS - len(ids)),
            offsets=[(k, k + 1) for k in range(len(ids))] + [(0, 0)],
            overflowing=[text[LETTERS:]] if len(text) > LETTERS else [],
        )


def prompted(defaults=GUIDED, **facts):
    """Return the manifest, the sessions and the tokenizer of such a model."""
    manifest = make_manifest(replace(PROMPTED, **facts), defaults)
    return manifest, make_sessions(manifest), LetterTokenizer()


def prompted_pipeline(**facts):
    return Pipeline(*prompted(**facts))
