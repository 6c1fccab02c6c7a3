"""The tokenizer of a bundle, as the `tokenizers` package reads it.

Knows its file, and what of it would end the process inside of the package; nothing of prompts.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from lvdm_engines.bundle import Bundle
from lvdm_engines.errors import BundleError, cause, is_failure, one_line
from lvdm_engines.manifest import ContextFacts


class _Told(msgspec.Struct):
    """What is checked of the file; the package reads the rest."""

    padding: dict[str, Any] | None = None
    truncation: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None


def load_tokenizer(bundle: Bundle) -> Any:
    """Return a bundle's tokenizer, which knows as many tokens as its encoder.

    Raises BundleError for a file that is damaged or does not belong there, and without the package.
    """
    path, manifest = bundle.tokenizer(), bundle.manifest
    try:
        from tokenizers import Tokenizer
    except ImportError as err:
        raise BundleError(
            f"{manifest.name} reads text, but tokenizers is not installed; "
            "pip install 'lvdm-rt[text]'"
        ) from err
    try:
        _check(msgspec.json.decode(path.read_bytes(), type=_Told), manifest.model.context)
        tokenizer = Tokenizer.from_file(str(path))
    except OSError as err:
        raise BundleError(f"{path}: cannot be read: {cause(err, 'copy it again')}") from err
    except BaseException as err:
        if not is_failure(err):
            raise
        reason = one_line(str(err), 160)
        raise BundleError(f"{path}: is no tokenizer ({reason}); export the bundle again") from err
    known, facts = tokenizer.get_vocab_size(), manifest.tokenizer
    if facts is not None and known != facts.vocabulary:
        raise BundleError(
            f"{path}: knows {known} tokens, but the text encoder {facts.vocabulary}; they belong "
            "to different models, export the bundle again"
        )
    return tokenizer


def _check(told: _Told, context: ContextFacts | None) -> None:
    """Raise ValueError for lengths that cannot be the model's, and tokens that are not told."""
    most = 0 if context is None else context.tokens
    padding, truncation = told.padding or {}, told.truncation or {}
    lengths = {
        "padding": padding.get("strategy", {"Fixed": most}) == {"Fixed": most},
        "pad_to_multiple_of": (padding.get("pad_to_multiple_of") or 1) <= most,
        "truncation": truncation.get("max_length", most) == most,
        "stride": 0 <= truncation.get("stride", 0) < most,
    }
    for name, right in lengths.items():
        if not right:
            raise ValueError(f"its {name} does not fit {most} tokens")
    for template in _templates(told.post_processor):
        known = template.get("special_tokens", {})
        for piece in template.get("single", ()):
            name = piece.get("SpecialToken", {}).get("id")
            if name is not None and name not in known:
                raise ValueError("its template has a token that is not among its special_tokens")


def _templates(processor: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield every template of a processor, which may be a sequence of them."""
    if processor is not None and processor.get("type") == "TemplateProcessing":
        yield processor
    for part in (processor or {}).get("processors", ()):
        yield from _templates(part)
