"""A model of arrays: smooth, deterministic, and quick enough to sample hundreds of clips."""

import math
import threading
import time

import numpy as np
import toy

from lvdm_engines.contract import STRIDE, graph_tensors
from lvdm_engines.defaults import Defaults
from lvdm_engines.errors import DeviceMemoryError
from lvdm_engines.manifest import (
    GRAPH_NAMES,
    GraphFacts,
    LatentFacts,
    ScheduleFacts,
    ShortFacts,
    TokenizerFacts,
)
from lvdm_engines.session import check_feeds

MODEL = toy.model_facts(
    latent=LatentFacts(channels=2, size=(4, 4), scale=0.5, shift=0.1),
    schedule=ScheduleFacts("sqrt-linear", 20, 0.0015, 0.0155),
    short=ShortFacts(clip=5),
    noise_levels=10,
)
DEFAULTS = Defaults(sampler="ddim", steps=4, eta=1.0, guidance=0.2, noise_level=5, refine=2)


def make_manifest(model=MODEL, defaults=DEFAULTS):
    graphs = {}
    tokenizer = None if model.context is None else TokenizerFacts("0" * 64, 256)
    for name in GRAPH_NAMES:
        if hasattr(model, name) and getattr(model, name) is None:
            continue
        if name == "text_encoder" and tokenizer is None:
            continue
        inputs, optional, outputs = graph_tensors(name, model)
        inputs = [*inputs, *(spec for spec in optional if name != "short" and spec != STRIDE)]
        if len(model.clips(name)) > 1:
            inputs, outputs = toy.timed(inputs, "t"), toy.timed(outputs, "t")
        graphs[name] = GraphFacts(f"{name}.onnx", "0" * 64, "fp32", tuple(inputs), tuple(outputs))
    return toy.manifest(
        name="fake", model=model, graphs=graphs, defaults=defaults, tokenizer=tokenizer
    )


class FakeSession:
    """A graph as a function of its feeds; counts its calls and keeps their batch sizes.

    `hook(call number)` runs before each call. Memory is for `most` rows. With `jitter` results
    change in their last bits with the number of rows, as those of real kernels do.
    """

    backend = "arrays"

    def __init__(self, manifest, graph, compute):
        self.graph = graph
        facts = manifest.graphs[graph]
        self.inputs, self.outputs = facts.inputs, facts.outputs
        self.compute = compute
        self.hook = lambda call: None
        self.jitter, self.most = False, math.inf
        self.rows: list[int] = []
        self.closed = False
        self.seconds = 0.0

    def run(self, feeds):
        check_feeds(self.inputs, feeds, self.graph)
        assert not self.closed
        rows = len(next(iter(feeds.values())))
        self.rows.append(rows)
        self.hook(len(self.rows))
        if rows > self.most:
            raise DeviceMemoryError("no room")
        time.sleep(self.seconds)
        out = self.compute(**feeds)
        if self.jitter and out.dtype == np.float32:
            out = out * np.float32(1 + rows * 2e-7)
        return {self.outputs[0].name: out}

    def close(self):
        self.closed = True


def denoise(latents, timestep, mask=None, noise_level=None, context=None):
    """A smooth function that mixes neighbouring latents, pixels and all other inputs."""
    turned = np.roll(latents, 1, axis=2) + np.roll(latents, 1, axis=3)
    t = timestep[:, None, None, None, None].astype(np.float32)
    out = np.sin(latents + np.float32(0.3) * turned) + np.float32(0.01) * t
    if mask is not None:
        out = out + np.float32(0.2) * mask[:, None, :, None, None]
    if noise_level is not None:
        out = out + np.float32(0.01) * noise_level[:, None, None, None, None].astype(np.float32)
    if context is not None:
        out = out + context.mean(axis=(1, 2), dtype=np.float32)[:, None, None, None, None]
    return out.astype(np.float32)


def embed(tokens):
    """Each token is a row of waves."""
    return np.sin(tokens[..., None] * np.arange(1, 4)).astype(np.float32)


def decode(latents):
    """Every latent becomes four frames of blocks; the edges of a window differ a little."""
    value = np.float32(128) + np.float32(20) * latents.mean(axis=1)  # (b, t, h, w)
    value = value + np.float32(0.2) * np.roll(value - 128, 1, axis=1)
    pixels = np.clip(np.rint(value), 0, 255).astype(np.uint8)
    pixels = pixels.repeat(4, axis=1).repeat(4, axis=2).repeat(4, axis=3)
    return np.repeat(pixels[..., None], 3, axis=-1)


def encode(frames):
    b, f, h, w, _ = frames.shape
    blocks = frames.astype(np.float32).mean(-1).reshape(b, f // 4, 4, h // 4, 4, w // 4, 4)
    value = (blocks.mean(axis=(2, 4, 6)) - np.float32(128)) / np.float32(24)
    return np.stack([value, value], axis=1).astype(np.float32)


COMPUTE = {"encoder": encode, "decoder": decode, "text_encoder": embed}


def make_sessions(manifest):
    return {
        name: FakeSession(manifest, name, COMPUTE.get(name, denoise)) for name in manifest.graphs
    }


def videos_of(pipeline, options, **how):
    """Generate and return {video: frames}, checking that chunks follow each other."""
    out = {}
    for video, start, frames in pipeline.stream_videos(options, **how):
        parts = out.setdefault(video, [])
        assert start == sum(map(len, parts))
        parts.append(frames)
    return {video: np.concatenate(parts) for video, parts in out.items()}


def our_threads():
    """The names of the threads that a pipeline runs in."""
    return [t.name for t in threading.enumerate() if t.name.startswith("lvdm-rt")]
