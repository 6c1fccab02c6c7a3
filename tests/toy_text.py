"""A toy model that reads text: a table of words as its encoder, a tokenizer that knows them.

A context is the row of the table; the denoiser adds the mean of it to its latents.
"""

import json
from pathlib import Path

import numpy as np
import toy

from lvdm_engines.bundle import Bundle, file_sha256
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.manifest import ContextFacts, GraphFacts, ModelFacts, ShortFacts, TensorSpec

WORDS = ("<end>", "<start>", "red", "green", "blue", "sky")
TOKENS, DIM = 5, 3
TABLE = np.linspace(-1, 1, len(WORDS) * DIM, dtype=np.float32).reshape(len(WORDS), DIM)
LATENTS = TensorSpec("latents", "float32", ("b", 2, 3, 2, 2))
TIMESTEP = TensorSpec("timestep", "int64", ("b",))
CONTEXT = TensorSpec("context", "float32", ("b", TOKENS, DIM))


def text_model() -> ModelFacts:
    """A model of single clips of three latents that reads a context."""
    return toy.model_facts(
        predict=None,
        interpolate=None,
        short=ShortFacts(3),
        noise_levels=None,
        context=ContextFacts(TOKENS, DIM),
    )


def tokenizer_json() -> bytes:
    """A tokenizer of words between spaces, with start and end, cut and padded to `TOKENS`."""
    ends = {word: {"id": word, "ids": [WORDS.index(word)], "tokens": [word]} for word in WORDS[:2]}
    single = [
        {"SpecialToken": {"id": "<start>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<end>", "type_id": 0}},
    ]
    cut = {"direction": "Right", "max_length": TOKENS, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": TOKENS},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<end>",
    }
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    described = {
        "version": "1.0",
        "truncation": cut,
        "padding": padding,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": ends,
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<end>"},
    }
    return json.dumps(described).encode()


def write_text_bundle(folder: Path) -> Bundle:
    """Write a bundle with the graphs `short` and `text_encoder`, and the tokenizer."""
    with BundleWriter(folder) as writer:
        made = toy.manifest(
            model=text_model(),
            graphs={"short": _short(writer.path), "text_encoder": _encoder(writer.path)},
            tokenizer=writer.keep_tokenizer(tokenizer_json(), len(WORDS)),
        )
        return writer.finish(made)


def _short(folder: Path) -> GraphFacts:
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMean", ["context", "axes"], ["mean"], keepdims=1),
        helper.make_node("Unsqueeze", ["mean", "axes"], ["wide"]),
        helper.make_node("Add", ["latents", "wide"], ["eps"]),
    ]
    constants = [numpy_helper.from_array(np.array([1, 2], np.int64), "axes")]
    eps = TensorSpec("eps", "float32", LATENTS.shape)
    return _written(folder / "short.onnx", nodes, (LATENTS, TIMESTEP, CONTEXT), eps, constants)


def _encoder(folder: Path) -> GraphFacts:
    from onnx import helper, numpy_helper

    nodes = [helper.make_node("Gather", ["table", "tokens"], ["context"])]
    constants = [numpy_helper.from_array(TABLE, "table")]
    tokens = TensorSpec("tokens", "int64", ("b", TOKENS))
    return _written(folder / "text_encoder.onnx", nodes, (tokens,), CONTEXT, constants)


def _written(path: Path, nodes, inputs, output, constants) -> GraphFacts:
    toy.write_graph(path, nodes, inputs, (output,), constants)
    return GraphFacts(path.name, file_sha256(path), "fp32", inputs, (output,))
