"""Checkpoints to a verified bundle: the whole of `lvdm-export build-engines`."""

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import count

import msgspec
import torch

from lvdm_engines.bundle import Bundle
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.defaults import Defaults
from lvdm_engines.errors import ConfigError, quoted
from lvdm_engines.manifest import GraphFacts, Manifest, ModelFacts, Provenance
from lvdm_export.checkpoint.keys import Checkpoint
from lvdm_export.checkpoint.noise_table import check_schedule
from lvdm_export.checkpoint.weights import (
    check_fit,
    check_text_encoder,
    load_autoencoder,
    load_denoiser,
    load_text_encoder,
)
from lvdm_export.config.model_facts import defaults, model_facts
from lvdm_export.graph.export import ExportTarget, export_graph, steps
from lvdm_export.graph.graphs import (
    Autoencoder,
    Graph,
    decoder_graph,
    denoiser_graph,
    encoder_graph,
    text_encoder_graph,
)
from lvdm_export.graph.preview import fit_preview
from lvdm_export.graph.sizes_fit import check_sizes
from lvdm_export.inputs import (
    BuildOptions,
    Inputs,
    Source,
    check_sums,
    digest,
    naming,
    read_inputs,
    uses_ema,
)
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig
from lvdm_export.text.source import Reader, TextParts, find_text
from lvdm_export.verify.backends import check_backend

Report = Callable[[str], None]


def build(options: BuildOptions, report: Report) -> Bundle:
    """Export every graph, check it against torch, and put the finished bundle in place.

    `report` receives one line per long step. Nothing is left behind on an error or an interrupt.

    Raises LvdmError: the subclass and the message say what is wrong with which input.
    """
    if not options.denoisers.keys() - {"distilled"}:
        raise ConfigError("nothing to export: give --predict, --interpolate, --short or --text")
    check_backend("cpu")  # every graph is compared with torch on it, but long after this
    with BundleWriter(options.out, force=options.force) as writer:
        inputs = read_inputs(options)
        for checkpoint in inputs.checkpoints.values():
            _tell_renamed(checkpoint, report)
        with naming(inputs.autoencoder_config, *(s.config for s in options.denoisers.values())):
            model = model_facts(inputs.records, inputs.autoencoder, options.decode_window)
        sampling = _defaults(options, model)
        _check_fit(options, inputs, model)
        text = _text(options, inputs, model)
        if options.sha256:
            found = [*inputs.checkpoints.values(), *([text.checkpoint] if text else [])]
            check_sums(options.sha256, found)
        networks = _networks(options, inputs, model, text)
        tell = _numbered(report, 2 + len(networks) * steps(options.precision))
        target = ExportTarget(writer.path, model, options.precision, tell, options.weights)
        graphs: dict[str, GraphFacts] = {}
        parity: dict[str, dict[str, object]] = {}
        references: dict[str, dict[str, object]] = {}
        for names, make in networks:
            tell(f"{names[0]}: reading weights")
            exported = export_graph(target, make(), names)
            graphs |= dict.fromkeys(names, exported.facts)
            parity |= exported.parity
            references |= exported.references
            gc.collect()
        preview = fit_preview(_autoencoder(inputs), model)
        told = f"R² {preview.r2:.2f}, off by {preview.levels:.0f} of 255 levels"
        tell(f"preview: colours fitted to latents, {told}")
        writer.record(references)
        tell("hashing checkpoints")
        for path, checkpoint in inputs.checkpoints.items():
            report(f"{path}: sha256 {digest(checkpoint)}")
        manifest = Manifest(
            name=options.name or options.out.resolve().name,
            model=model,
            graphs={name: graphs[name] for name in sorted(graphs)},
            provenance=_provenance(options, inputs, text),
            tokenizer=None if text is None else text.keep_tokenizer(writer),
            preview=preview.map,
            defaults=sampling,
            parity=parity,
        )
        return writer.finish(manifest)


def _numbered(report: Report, total: int) -> Report:
    """Begin every line with how far the work is, such as 3/13."""
    number = count(1)
    return lambda line: report(f"{next(number)}/{total} {line}")


def _tell_renamed(checkpoint: Checkpoint, report: Report) -> None:
    if checkpoint.renamed:
        key, name = map(quoted, checkpoint.renamed)
        report(f"{checkpoint.path}: keys are wrapped; {key} is read as {name}")


def _defaults(options: BuildOptions, model: ModelFacts) -> Defaults:
    usual = defaults(model, options.fps)
    asked = {name: value for name, value in options.sampling.items() if value is not None}
    level = asked.get("noise_level")
    if level is not None and not level < (model.noise_levels or 0):
        raise ConfigError(
            f"the default noise level {level} is out of range: the model knows "
            f"{model.noise_levels or 0} levels"
        )
    if "text_guidance" in asked and model.context is None:
        raise ConfigError("got text guidance for a model that reads no text; leave it out")
    if asked.get("overlap", 0) > model.decode_window // 2:
        raise ConfigError(
            f"got an overlap of {asked['overlap']} latents, but decode windows have "
            f"{model.decode_window}: expected half of that at most"
        )
    if asked.get("sampler", usual.sampler) != usual.sampler:  # which brings its own steps
        asked.setdefault("steps", Defaults().steps)
    chosen = msgspec.structs.replace(usual, **asked)
    if problem := chosen.misfit(model.calls):
        raise ConfigError(f"{problem}; leave --steps or --sampler out")
    return chosen


def _check_fit(options: BuildOptions, inputs: Inputs, model: ModelFacts) -> None:
    """Compare all configs with their checkpoints and each other before the first long step."""
    checkpoint = inputs.checkpoints[inputs.autoencoder_checkpoint]
    with naming(inputs.autoencoder_config):
        autoencoder = check_fit(inputs.autoencoder.network_config(), checkpoint, ema=False)
        assert not isinstance(autoencoder, UNet3d)  # noqa: S101 - `model_facts` refused it
        check_sizes(encoder_graph(autoencoder, model), "encoder", model)
        check_sizes(decoder_graph(autoencoder, model), "decoder", model)
    for name, source in options.denoisers.items():
        checkpoint = inputs.checkpoints[source.checkpoint]
        with naming(source.config):
            config, ema = inputs.records[name].network_config(), uses_ema(options, inputs, name)
            denoiser = check_fit(config, checkpoint, ema=ema)
            assert isinstance(denoiser, UNet3d)  # noqa: S101 - `model_facts` refused others
            check_sizes(denoiser_graph(denoiser, (name,), model), name, model)
        schedule = inputs.records[name].schedule
        if schedule is not None:
            check_schedule(schedule, checkpoint)


def _text(options: BuildOptions, inputs: Inputs, model: ModelFacts) -> TextParts | None:
    """Find what reads prompts and compare it with the networks, before the first long step."""
    readers = [
        Reader(source.config, inputs.records[name], inputs.checkpoints[source.checkpoint])
        for name, source in options.denoisers.items()
    ]
    text = find_text(readers, model.context, options.text_encoder, options.tokenizer)
    if text is not None:
        encoder = check_text_encoder(text.config, text.checkpoint)
        with naming(text.checkpoint.path):
            check_sizes(text_encoder_graph(encoder, model), "text_encoder", model)
    return text


def _networks(
    options: BuildOptions, inputs: Inputs, model: ModelFacts, text: TextParts | None
) -> list[tuple[tuple[str, ...], Callable[[], Graph]]]:
    """List the graphs to make, in order; graph names that share a network share a file."""
    shared: dict[Source, list[str]] = {}
    for name, source in options.denoisers.items():
        key = Source(source.config.resolve(), source.checkpoint.resolve())
        shared.setdefault(key, []).append(name)

    def denoiser(names: tuple[str, ...]) -> Graph:
        unet = inputs.records[names[0]].network_config()
        assert isinstance(unet, UNet3dConfig)  # noqa: S101 - `model_facts` refused others
        unet = replace(unet, timesteps=model.schedule.steps)
        ema = uses_ema(options, inputs, names[0])
        weights = inputs.checkpoints[options.denoisers[names[0]].checkpoint]
        return denoiser_graph(load_denoiser(unet, weights, ema=ema), names, model)

    def text_encoder(of: TextParts) -> Graph:
        return text_encoder_graph(load_text_encoder(of.config, of.checkpoint), model)

    return [
        *([(("text_encoder",), partial(text_encoder, text))] if text else []),
        (("encoder",), lambda: encoder_graph(_autoencoder(inputs), model)),
        (("decoder",), lambda: decoder_graph(_autoencoder(inputs), model)),
        *((tuple(names), partial(denoiser, tuple(names))) for names in shared.values()),
    ]


def _autoencoder(inputs: Inputs) -> Autoencoder:
    checkpoint = inputs.checkpoints[inputs.autoencoder_checkpoint]
    config = inputs.autoencoder.network_config()
    assert not isinstance(config, UNet3dConfig)  # noqa: S101 - `model_facts` refused it
    return load_autoencoder(config, checkpoint)


def _provenance(options: BuildOptions, inputs: Inputs, text: TextParts | None) -> Provenance:
    digests = {path: digest(checkpoint) for path, checkpoint in inputs.checkpoints.items()}
    by_graph = {name: digests[s.checkpoint] for name, s in options.denoisers.items()}
    by_graph["autoencoder"] = digests[inputs.autoencoder_checkpoint]
    if text is not None:
        by_graph["text_encoder"] = digest(text.checkpoint)
    single = len(set(by_graph.values())) == 1
    notes = {
        name: record.provenance
        for name, record in {**inputs.records, "autoencoder": inputs.autoencoder}.items()
        if record.provenance
    }
    if options.weights != "fp32":
        notes["weights"] = {"rounded_to": options.weights}
    return Provenance(
        checkpoint_sha256=next(iter(by_graph.values())) if single else by_graph,
        ema=any(uses_ema(options, inputs, name) for name in inputs.records),
        lvdm_rt=version("lvdm-rt"),
        torch=torch.__version__.split("+")[0],
        notes=notes,
    )
