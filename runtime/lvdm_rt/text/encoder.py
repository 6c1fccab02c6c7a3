"""Contexts of texts: tokenized, encoded once, kept.

Knows the tokenizer's file and the graph `text_encoder`; nothing of what a text is used for.
"""

import logging
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import BundleError, NumericsError, PlanError, is_failure, one_line, quoted
from lvdm_engines.manifest import ContextFacts, Manifest
from lvdm_rt.model import Model

_log = logging.getLogger(__name__)

KEPT = 256  # texts whose contexts are kept, some 240 kB each


class TextEncoder:
    """The text half of a model; a text is encoded alone, so that its context is always the same.

    `tokens(text)` int64 (1, l) says once if a text is cut, `context(text)` is float32 (l, d); both
    remember what they gave, and nobody may change it. They raise BundleError for tokens or a
    context that do not fit the model, `context` also NumericsError and SessionError.
    """

    def __init__(self, model: Model, tokenizer: Any) -> None:
        """Take what encodes as `tokenizers.Tokenizer` does. Raises PlanError without a context."""
        self._model, self._sizes = model, _sizes(model.manifest)
        self._tokenizer = tokenizer
        self.tokens = lru_cache(KEPT)(self._tokens)
        self.context = lru_cache(KEPT)(self._context)

    def _tokens(self, text: str) -> NDArray[np.int64]:
        most = self._sizes.tokens
        try:
            encoded = self._tokenizer.encode(text)
        except BaseException as err:
            if not is_failure(err):
                raise
            raise BundleError(
                f"{self._model.manifest.name}: the tokenizer fails at {quoted(text)} "
                f"({one_line(str(err), 160)}); export the bundle again"
            ) from err
        if len(encoded.ids) != most:
            raise BundleError(
                f"{self._model.manifest.name}: the tokenizer gives {len(encoded.ids)} tokens, "
                f"expected {most}; export the bundle again"
            )
        if encoded.overflowing:
            rest = text[max(end for _, end in encoded.offsets) :].strip()
            _log.warning(
                "of a prompt %d tokens are read, and it has more: from %s on it is cut",
                most,
                quoted(rest),
            )
        return np.array([encoded.ids], np.int64)

    def _context(self, text: str) -> NDArray[np.float32]:
        context = self._model.run("text_encoder", {"tokens": self.tokens(text)})["context"][0]
        expected = (self._sizes.tokens, self._sizes.dim)
        if context.shape != expected:
            raise BundleError(
                f"text_encoder: got a context {context.shape}, expected {expected}; export the "
                "bundle again"
            )
        if not np.isfinite(context).all():
            raise NumericsError(
                f"the text encoder returned NaN or infinity for the prompt {quoted(text)}; check "
                "the bundle with lvdm-export verify"
            )
        context.flags.writeable = False
        return np.asarray(context)


def _sizes(manifest: Manifest) -> ContextFacts:
    if manifest.model.context is None:
        raise PlanError(f"got a tokenizer, but {manifest.name} reads no text; leave it out")
    return manifest.model.context
