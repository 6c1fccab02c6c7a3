from collections.abc import Callable

import pytest

from lvdm_engines.manifest import (
    GraphFacts,
    InterpolateFacts,
    LatentFacts,
    Manifest,
    ModelFacts,
    PredictFacts,
    Provenance,
    ScheduleFacts,
    TensorSpec,
)


@pytest.fixture
def model() -> ModelFacts:
    return ModelFacts(
        frame_size=(16, 16),
        frames_per_latent=4,
        latent=LatentFacts(channels=2, size=(2, 2), scale=0.5, shift=1.5),
        schedule=ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155),
        decode_window=4,
        predict=PredictFacts(clip=4, condition=1, stride=4),
        interpolate=InterpolateFacts(clip=5),
        noise_levels=250,
    )


@pytest.fixture
def make_manifest(model: ModelFacts) -> Callable[..., Manifest]:
    def make(**graphs: GraphFacts) -> Manifest:
        provenance = Provenance(checkpoint_sha256="0" * 64, ema=True, lvdm_rt="0.1.0")
        return Manifest(name="tiny", model=model, graphs=graphs, provenance=provenance)

    return make


@pytest.fixture
def graph_facts() -> GraphFacts:
    return GraphFacts(
        file="predict.onnx",
        sha256="0" * 64,
        precision="fp32",
        inputs=(
            TensorSpec("latents", "float32", ("b", 2, 4, 2, 2)),
            TensorSpec("timestep", "int64", ("b",)),
        ),
        outputs=(TensorSpec("eps", "float32", ("b", 2, 4, 2, 2)),),
    )
