"""The tensors that each graph must have, given what the model is.

The one place that says which inputs and outputs export promises and the runtime relies on.
"""

from collections.abc import Iterable, Sequence

from lvdm_engines.errors import BundleError
from lvdm_engines.manifest import DENOISERS, GraphFacts, Manifest, ModelFacts, TensorSpec

MEAN = TensorSpec("mean", "float32", ("b",))
"""An output that decoders have since bytes were found to hide NaN: the mean of the frames before
they became bytes, in [-1, 1] or so; it is not finite where a frame is not."""

STRIDE = TensorSpec("stride", "int64", ("b",))
"""An input of denoisers that are told how far apart the latents of a clip lie in the video."""


def check_contract(manifest: Manifest, source: str) -> None:
    """Compare every graph's declared tensors with the model's facts; `source` names the manifest.

    A declared dimension may be free where the contract has a number. Raises BundleError.
    """
    for name in DENOISERS:
        if getattr(manifest.model, name) is not None and name not in manifest.graphs:
            raise BundleError(
                f"{source}: model.{name} is present but graph {name!r} is not; "
                "export the bundle again with that model"
            )
    channels = manifest.model.latent.channels
    if manifest.preview is not None and len(manifest.preview.weights) != channels:
        raise BundleError(
            f"{source}: preview has weights of {len(manifest.preview.weights)} channels, expected "
            f"{channels}; correct it or export the bundle again"
        )
    for name, graph in manifest.graphs.items():
        clips: set[int] | set[None] = manifest.model.clips(name) or {None}
        for clip in clips:
            inputs, optional, outputs = graph_tensors(name, manifest.model, clip)
            problem = difference("input", graph.inputs, inputs, optional)
            extra = [MEAN] if name == "decoder" else []
            problem = problem or difference("output", graph.outputs, outputs, extra)
            if problem:
                raise BundleError(
                    f"{source}: graph {name!r}: {problem}; correct it or export the bundle again"
                )


def graph_tensors(
    name: str, model: ModelFacts, clip: int | None = None
) -> tuple[list[TensorSpec], list[TensorSpec], list[TensorSpec]]:
    """Return the inputs, optional inputs and outputs of graph `name`; "b" is the batch.

    A denoiser's are those of clips of `clip` latents, or of its longest ones.

    Raises BundleError for a text encoder of a model without context.
    """
    window = model.decode_window
    latents = _latents(model, window)
    length = window * model.frames_per_latent
    frames = TensorSpec("frames", "uint8", ("b", length, *model.frame_size, 3))
    if name == "encoder":
        return [frames], [], [latents]
    if name == "decoder":
        return [latents], [], [frames]
    if name == "text_encoder":
        context = _context(model)
        if not context:
            raise BundleError("got a text_encoder graph, but model.context is missing; add it")
        tokens = TensorSpec("tokens", "int64", context[0].shape[:2])
        return [tokens], [], context
    return _denoiser(name, model, clip or max(model.clips(name)))


def predicts_neighbours(manifest: Manifest) -> bool:
    """Tell whether the predictor learnt neighbouring latents: at stride 1, or told the stride."""
    predict, graph = manifest.model.predict, manifest.graphs.get("predict")
    told = graph is not None and any(spec.name == STRIDE.name for spec in graph.inputs)
    return predict is not None and (predict.stride == 1 or told)


def mismatch(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], facts: GraphFacts) -> str:
    """Return the first way in which an engine's tensors differ from those declared, or ""."""
    problem = difference("input", inputs, facts.inputs)
    return problem or difference("output", outputs, facts.outputs)


def difference(
    kind: str,
    declared: Sequence[TensorSpec],
    expected: Sequence[TensorSpec],
    optional: Iterable[TensorSpec] = (),
) -> str:
    """Return the first way in which declared tensors differ from the expected ones, or ""."""
    known = {spec.name: spec for spec in (*expected, *optional)}
    for spec in declared:
        if spec.name not in known:
            return f"{kind} {spec.name} is unknown, expected {', '.join(known)}"
        want = known[spec.name]
        if spec.dtype != want.dtype or not _shapes_agree(spec.shape, want.shape):
            return f"{kind} {spec.name}: got {spec.kind}, expected {want.kind}"
    for want in expected:
        if all(spec.name != want.name for spec in declared):
            return f"{kind} {want} is missing"
    return ""


def _shapes_agree(got: tuple[int | str, ...], want: tuple[int | str, ...]) -> bool:
    """Tell whether `got` serves `want`: a free dimension serves any number, a number itself."""
    return len(got) == len(want) and all(
        isinstance(g, str) or g == w for g, w in zip(got, want, strict=True)
    )


def _denoiser(
    name: str, model: ModelFacts, clip: int
) -> tuple[list[TensorSpec], list[TensorSpec], list[TensorSpec]]:
    latents = _latents(model, clip)
    mask = TensorSpec("mask", "float32", ("b", clip))
    levels = [TensorSpec("noise_level", "int64", ("b",))] if model.noise_levels else []
    always = [latents, TensorSpec("timestep", "int64", ("b",)), *_context(model)]
    outputs = [TensorSpec("eps", "float32", latents.shape)]
    alone = name == "distilled" and not (model.predict or model.interpolate)
    if name == "short" or alone:  # with a mask as well where it was trained jointly
        return always, [mask, *levels, STRIDE], outputs
    return [*always, mask, *levels], [STRIDE], outputs


def _latents(model: ModelFacts, length: int) -> TensorSpec:
    return TensorSpec(
        "latents", "float32", ("b", model.latent.channels, length, *model.latent.size)
    )


def _context(model: ModelFacts) -> list[TensorSpec]:
    if model.context is None:
        return []
    return [TensorSpec("context", "float32", ("b", model.context.tokens, model.context.dim))]
