"""The file `tokenizer.json` of the `tokenizers` package, as a bundle keeps it.

Padding, cutting, start and end are part of the file, so that whoever reads it needs no more than
`Tokenizer.from_file(path).encode(prompt).ids`. Knows nothing of networks.
"""

import gzip
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from lvdm_engines.atomic import read_file, whole_file
from lvdm_engines.errors import (
    ConfigError,
    ExportError,
    cause,
    is_failure,
    one_line,
    quoted,
)

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_CLIP_MERGES = 49152 - 256 - 2  # of the published list, CLIP uses the first so many
_LONGEST = 64 << 20  # bytes; CLIP's files are of 2 MB
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

# What CLIP does to a text before it lowers its letters: it straightens quotes, drops control
# characters, makes one space of many; and the last of a word's sigmas is written differently.
_CLEANING = (
    (r"[\u02BC\u2018-\u201B]", "'"),
    (r"[\u201C-\u201F]", '"'),
    (r"[\x00-\x08\x0B\x0E-\x1F\x7F]", ""),
    (r"\s+", " "),
    (r"(?<=\p{L})Σ(?!'*\p{L})", "ς"),
)


def clip_tokenizer(merges: Path, tokens: int) -> bytes:
    """Make `tokenizer.json` of CLIP's byte pair encoding (paper arXiv 2103.00020, section 2.4).

    `merges` is the public list of merges, one a line under a header, as text or gzipped; `tokens`
    are those of a prompt, with start and end. Tokens are numbered: bytes, bytes that end a word,
    merges, start, end.

    Raises ConfigError: unreadable, or no such list.
    """
    pairs = _read_merges(merges)
    letters = _letters()
    names = [*letters, *(letter + _WORD_END for letter in letters)]
    known = set(names)
    for number, (left, right) in enumerate(pairs):
        if left not in known or right not in known or left + right in known:
            raise ConfigError(
                f"{merges}: line {number + 2} merges {quoted(left)} and {quoted(right)}, expected "
                "two tokens of the lines above, and a new one; take CLIP's bpe_simple_vocab file"
            )
        known.add(left + right)
        names.append(left + right)
    vocabulary = {name: number for number, name in enumerate([*names, START, END])}
    made = Tokenizer(
        models.BPE(vocab=vocabulary, merges=pairs, unk_token=END, end_of_word_suffix=_WORD_END)
    )
    cleaning = [normalizers.Replace(Regex(what), by) for what, by in _CLEANING]
    made.normalizer = normalizers.Sequence([normalizers.NFC(), *cleaning, normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.post_processor = _between(vocabulary)
    made.add_special_tokens([START, END])
    return _sized(made, tokens)


def trained_tokenizer(captions: Iterable[str], vocabulary: int, tokens: int) -> bytes:
    """Make `tokenizer.json` of byte pairs learnt from captions: of any text, in lower case.

    There are at most `vocabulary` tokens: every byte, start, end, and the commonest sequences.
    """
    made = Tokenizer(models.BPE())
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), spaces, normalizers.Strip(), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(captions, trainer)
    made.post_processor = _between(made.get_vocab())
    return _sized(made, tokens)


def _between(ends: Mapping[str, int]) -> processors.TemplateProcessing:
    """Put a prompt between start and end."""
    return processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(name, ends[name]) for name in (START, END)]
    )


def fitted_tokenizer(path: Path, tokens: int, vocabulary: int) -> bytes:
    """Return a `tokenizer.json` whose prompts are cut and padded to the `tokens` of a model.

    A file without padding, such as CLIP's at Hugging Face, pads with its end token, as CLIP does.

    Raises ConfigError: unreadable, not such a file, or made for another vocabulary.
    """
    data = _read(path)
    try:
        made = Tokenizer.from_str(data.decode())
        known = made.get_vocab(with_added_tokens=True).values()
        special = made.num_special_tokens_to_add(is_pair=False)
        sized = _sized(made, max(tokens, special + 1))
    except BaseException as err:
        if not is_failure(err):
            raise
        raise ConfigError(
            f"{path} is no tokenizer.json ({one_line(str(err), 160)}); make one with lvdm-export "
            "make-tokenizer"
        ) from err
    count = max(known, default=-1) + 1
    if count != vocabulary:
        raise ConfigError(
            f"{path} knows {count} tokens, but the text encoder {vocabulary}; take the tokenizer "
            "that it was trained with"
        )
    if tokens <= special:
        raise ConfigError(f"{path}: {tokens} tokens leave no room for a word between start and end")
    return sized


def write_tokenizer(path: Path, data: bytes, *, force: bool) -> None:
    """Write the file; it appears when it is whole.

    Raises ExportError: it exists and `force` was not asked, or cannot be written.
    """
    if os.path.lexists(path) and not force:
        raise ExportError(f"{path}: already exists; choose another name or pass --force")
    try:
        with whole_file(path) as file:
            file.write(data)
    except OSError as err:
        raise ExportError(f"{path}: cannot be written: {cause(err)}") from err


def _sized(made: Tokenizer, tokens: int) -> bytes:
    """Let a tokenizer cut and pad to a length; returns its file."""
    padding = made.padding or {}
    made.no_padding()
    made.no_truncation()
    last = made.encode("").ids[-1:] or [0]  # the end token, if there is one
    pad = padding.get("pad_id", last[0])
    made.enable_truncation(tokens)
    made.enable_padding(length=tokens, pad_id=pad, pad_token=made.id_to_token(pad) or "")
    return made.to_str(pretty=False).encode()


def _letters() -> Sequence[str]:
    """Return the character that stands for each byte, in the order of CLIP's tokens.

    Bytes that are visible in Latin-1 stand for themselves and come first; the others follow, as the
    characters from 256 on (Radford et al., GPT-2). The `tokenizers` package writes them so, too.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, visible), *(chr(256 + n) for n in range(256 - len(visible)))]


def _read_merges(path: Path) -> list[tuple[str, str]]:
    data = _read(path)
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                data = file.read(_LONGEST)
        lines = data.decode().splitlines()[1:]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as err:
        raise ConfigError(
            f"{path} is damaged ({err}), expected a list of merges, as text or gzipped"
        ) from err
    pairs = []
    for number, line in enumerate(lines[:_CLIP_MERGES]):
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise ConfigError(
                f"{path}: line {number + 2} is {quoted(line)}, expected two tokens with a space "
                "between; take CLIP's bpe_simple_vocab file"
            )
        pairs.append((left, right))
    if not pairs:
        raise ConfigError(f"{path} holds no merges; take CLIP's bpe_simple_vocab file")
    return pairs


def _read(path: Path) -> bytes:
    try:
        data = read_file(path, _LONGEST + 1)
    except OSError as err:
        raise ConfigError(f"cannot read {path}: {cause(err, 'name another file')}") from err
    except ValueError as err:  # a name that no file can have
        raise ConfigError(f"cannot read {path}: {err}") from err
    if len(data) > _LONGEST:
        raise ConfigError(f"{path} is larger than {_LONGEST >> 20} MiB, expected a smaller file")
    return data
