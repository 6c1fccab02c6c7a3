"""A toy bundle that makes frames of what it is told: `toy_frames` with the text of `toy_text`."""

from pathlib import Path

import numpy as np
import toy
from msgspec.structs import replace
from onnx import helper
from toy_frames import MODEL, decoder_nodes, denoiser_nodes, encoder_nodes, write_graph
from toy_text import DIM, TABLE, TOKENS, WORDS, tokenizer_json

from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.defaults import Defaults
from lvdm_engines.manifest import ContextFacts, ShortFacts

PROMPTED = replace(MODEL, short=ShortFacts(4), context=ContextFacts(TOKENS, DIM))


def told_nodes() -> tuple[list[object], dict[str, np.ndarray]]:
    """eps = that of `denoiser_nodes` + the mean of the context."""
    nodes, constants = denoiser_nodes()
    nodes[-1] = helper.make_node("Add", ["scaled", "bump"], ["untold"])
    nodes += [
        helper.make_node("ReduceMean", ["context", "inside"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "all"], ["told"]),
        helper.make_node("Add", ["untold", "told"], ["eps"]),
    ]
    return nodes, {**constants, "inside": np.array([1, 2]), "all": np.array([1, 2, 3, 4])}


def short_nodes() -> tuple[list[object], dict[str, np.ndarray]]:
    """The same without a mask."""
    nodes, constants = told_nodes()
    nodes[:4] = [helper.make_node("Mul", ["latents", "weight"], ["untold"])]
    return nodes, {name: constants[name] for name in ("weight", "inside", "all")}


def table_nodes(table: np.ndarray) -> tuple[list[object], dict[str, np.ndarray]]:
    """The context of a token is its row of the table."""
    return [helper.make_node("Gather", ["table", "tokens"], ["context"])], {"table": table}


def write_prompted_bundle(
    target: Path,
    *,
    table: np.ndarray = TABLE,
    vocabulary: int = len(WORDS),
    tokenizer: bytes | None = None,
    short: bool = False,
    **defaults: object,
) -> Path:
    """Write a bundle named told: all networks but `short`, or that alone, and text."""
    facts = replace(PROMPTED, **dict.fromkeys(_without(short=short)))
    denoisers = {"short": short_nodes()} if short else {"predict": told_nodes()}
    if not short:
        denoisers["interpolate"] = told_nodes()
    graphs = {"encoder": encoder_nodes(), "decoder": decoder_nodes(), **denoisers}
    graphs["text_encoder"] = table_nodes(table)
    wanted = {"guidance": 0.1, "text_guidance": 2.0} | defaults
    with BundleWriter(target) as writer:
        made = {n: write_graph(writer.path, n, *parts, facts) for n, parts in graphs.items()}
        writer.finish(
            toy.manifest(
                name="told",
                model=facts,
                graphs=made,
                defaults=Defaults("ddim", 5, 1.0, noise_level=10, **wanted),
                tokenizer=writer.keep_tokenizer(tokenizer or tokenizer_json(), vocabulary),
            )
        )
    return target


def _without(*, short: bool) -> tuple[str, ...]:
    return ("predict", "interpolate") if short else ("short",)
