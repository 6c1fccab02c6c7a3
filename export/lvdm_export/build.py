"""Checkpoints to a verified bundle: the whole of `lvdm-export build-engines`."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import torch

from lvdm_engines.bundle import Bundle, file_sha256
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.errors import CheckpointError, ConfigError, quoted
from lvdm_engines.manifest import Defaults, GraphFacts, Manifest, ModelFacts, Precision, Provenance
from lvdm_export.checkpoint.keys import Checkpoint, open_checkpoint
from lvdm_export.checkpoint.noise_table import check_schedule, with_table
from lvdm_export.checkpoint.shards import is_there
from lvdm_export.checkpoint.weights import (
    check_fit,
    check_text_encoder,
    load_autoencoder,
    load_denoiser,
    load_text_encoder,
)
from lvdm_export.config.model_facts import defaults, model_facts
from lvdm_export.config.model_json import ModelRecord, scaled
from lvdm_export.config.yaml_config import Description, read_config
from lvdm_export.graph.export import ExportTarget, export_graph, steps
from lvdm_export.graph.graphs import (
    Autoencoder,
    Graph,
    decoder_graph,
    denoiser_graph,
    encoder_graph,
    text_encoder_graph,
)
from lvdm_export.graph.sizes_fit import check_sizes
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig
from lvdm_export.text.source import Reader, TextParts, find_text
from lvdm_export.verify.backends import check_backend

Report = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A network on disk: its configuration and its checkpoint."""

    config: Path
    checkpoint: Path


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build. `denoisers` are by graph name; `autoencoder` is a checkpoint of its own.

    `text_encoder` is a folder as Hugging Face keeps CLIP in, `tokenizer` a tokenizer.json.
    """

    denoisers: Mapping[str, Source]
    out: Path
    autoencoder: Path | None = None
    text_encoder: Path | None = None
    tokenizer: Path | None = None
    name: str | None = None
    precision: Precision = "fp32"
    weights: Precision = "fp32"
    ema: bool = True
    force: bool = False
    fps: float = 8.0
    decode_window: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)  # defaults of the bundle
    sha256: tuple[str, ...] = ()  # of the only checkpoints to take; any if there is none


@dataclass(frozen=True)
class _Inputs:
    """Everything that was read before the first graph is exported."""

    checkpoints: dict[Path, Checkpoint]
    records: dict[str, ModelRecord]
    autoencoder: ModelRecord
    autoencoder_config: Path
    autoencoder_checkpoint: Path


def build(options: BuildOptions, report: Report) -> Bundle:
    """Export every graph, check it against torch, and put the finished bundle in place.

    `report` receives one line per long step. Nothing is left behind on an error or an interrupt.

    Raises LvdmError: the subclass and the message say what is wrong with which input.
    """
    if not options.denoisers:
        raise ConfigError("nothing to export: give --predict, --interpolate, --short or --text")
    check_backend("cpu")  # every graph is compared with torch on it, but long after this
    with BundleWriter(options.out, force=options.force) as writer:
        inputs = _read(options)
        for checkpoint in inputs.checkpoints.values():
            _tell_renamed(checkpoint, report)
        if options.sha256:
            _check_sums(options, inputs)
        with _naming(inputs.autoencoder_config, *(s.config for s in options.denoisers.values())):
            model = model_facts(inputs.records, inputs.autoencoder, options.decode_window)
        sampling = _defaults(options, model)
        _check_fit(options, inputs, model)
        text = _text(options, inputs, model)
        networks = _networks(options, inputs, model, text)
        tell = _numbered(report, 1 + len(networks) * steps(options.precision))
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
        writer.record(references)
        tell("hashing checkpoints")
        for path, checkpoint in inputs.checkpoints.items():
            report(f"{path}: sha256 {_digest(checkpoint)}")
        manifest = Manifest(
            name=options.name or options.out.resolve().name,
            model=model,
            graphs={name: graphs[name] for name in sorted(graphs)},
            provenance=_provenance(options, inputs, text),
            tokenizer=None if text is None else text.keep_tokenizer(writer),
            defaults=sampling,
            parity=parity,
        )
        return writer.finish(manifest)


def _check_sums(options: BuildOptions, inputs: _Inputs) -> None:
    """Refuse checkpoints other than those that were asked for. Raises CheckpointError."""
    expected = [digest.lower() for digest in options.sha256]
    for path, checkpoint in inputs.checkpoints.items():
        if _digest(checkpoint) not in expected:
            raise CheckpointError(
                f"{path} has sha256 {_digest(checkpoint)}, expected "
                f"{quoted(' or '.join(expected))} of --sha256; take the file that you mean"
            )


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
    return msgspec.structs.replace(usual, **asked)


def _check_fit(options: BuildOptions, inputs: _Inputs, model: ModelFacts) -> None:
    """Compare all configs with their checkpoints and each other before the first long step."""
    checkpoint = inputs.checkpoints[inputs.autoencoder_checkpoint]
    with _naming(inputs.autoencoder_config):
        autoencoder = check_fit(inputs.autoencoder.network_config(), checkpoint, ema=False)
        assert not isinstance(autoencoder, UNet3d)  # noqa: S101 - `model_facts` refused it
        check_sizes(encoder_graph(autoencoder, model), "encoder", model)
        check_sizes(decoder_graph(autoencoder, model), "decoder", model)
    for name, source in options.denoisers.items():
        checkpoint = inputs.checkpoints[source.checkpoint]
        with _naming(source.config):
            config, ema = inputs.records[name].network_config(), _uses_ema(options, inputs, name)
            denoiser = check_fit(config, checkpoint, ema=ema)
            assert isinstance(denoiser, UNet3d)  # noqa: S101 - `model_facts` refused others
            check_sizes(denoiser_graph(denoiser, (name,), model), name, model)
        schedule = inputs.records[name].schedule
        if schedule is not None:
            check_schedule(schedule, checkpoint)


def _text(options: BuildOptions, inputs: _Inputs, model: ModelFacts) -> TextParts | None:
    """Find what reads prompts and compare it with the networks, before the first long step."""
    readers = [
        Reader(source.config, inputs.records[name], inputs.checkpoints[source.checkpoint])
        for name, source in options.denoisers.items()
    ]
    text = find_text(readers, model.context, options.text_encoder, options.tokenizer)
    if text is not None:
        encoder = check_text_encoder(text.config, text.checkpoint)
        with _naming(text.checkpoint.path):
            check_sizes(text_encoder_graph(encoder, model), "text_encoder", model)
    return text


@contextmanager
def _naming(*configs: Path) -> Iterator[None]:
    """Put the names of configs before what is wrong with them."""
    try:
        yield
    except ConfigError as err:
        named = ", ".join(dict.fromkeys(map(str, configs)))
        raise ConfigError(f"{named}: {err}") from err


def _read(options: BuildOptions) -> _Inputs:
    sources = options.denoisers.values()
    descriptions = {source.config: read_config(source.config) for source in sources}
    records = {}
    for name, source in options.denoisers.items():
        record = descriptions[source.config].denoiser
        if record is None:
            raise ConfigError(
                f"{source.config} describes an autoencoder, but {name} needs a denoiser"
            )
        records[name] = record
    autoencoder, told, path = _autoencoder_source(options, descriptions)
    checkpoints = {p: open_checkpoint(p) for p in {path, *(s.checkpoint for s in sources)}}
    for name, source in options.denoisers.items():
        schedule = records[name].schedule
        if schedule is not None:
            checkpoints[source.checkpoint] = with_table(checkpoints[source.checkpoint], schedule)
        records[name] = scaled(records[name], checkpoints[source.checkpoint])
    autoencoder = scaled(autoencoder, checkpoints[next(iter(sources)).checkpoint])
    return _Inputs(checkpoints, records, autoencoder, told, path)


def _autoencoder_source(
    options: BuildOptions, descriptions: Mapping[Path, Description]
) -> tuple[ModelRecord, Path, Path]:
    """Find the autoencoder: the one that was named, or the one inside a denoiser's checkpoint.

    Returns its record, the config that holds it, and its checkpoint.
    """
    path = options.autoencoder
    beside = path.with_suffix(".json") if path and path.suffix == ".safetensors" else None
    if path and beside and is_there(beside):
        record = read_config(beside).autoencoder
        if record is None:
            raise ConfigError(f"{beside} does not describe an autoencoder")
        return record, beside, path
    for source in options.denoisers.values():
        record = descriptions[source.config].autoencoder
        if record is not None:
            return record, source.config, path or source.checkpoint
    raise ConfigError(
        f"{', '.join(map(str, descriptions))}: no config describes the autoencoder; name its "
        "checkpoint with --autoencoder, its .json beside it"
    )


def _networks(
    options: BuildOptions, inputs: _Inputs, model: ModelFacts, text: TextParts | None
) -> list[tuple[tuple[str, ...], Callable[[], Graph]]]:
    """List the graphs to make, in order; graph names that share a network share a file."""
    shared: dict[Source, list[str]] = {}
    for name, source in options.denoisers.items():
        key = Source(source.config.resolve(), source.checkpoint.resolve())
        shared.setdefault(key, []).append(name)

    def autoencoder() -> Autoencoder:
        checkpoint = inputs.checkpoints[inputs.autoencoder_checkpoint]
        config = inputs.autoencoder.network_config()
        assert not isinstance(config, UNet3dConfig)  # noqa: S101 - `model_facts` refused it
        return load_autoencoder(config, checkpoint)

    def denoiser(names: tuple[str, ...]) -> Graph:
        unet = inputs.records[names[0]].network_config()
        assert isinstance(unet, UNet3dConfig)  # noqa: S101 - `model_facts` refused others
        ema = _uses_ema(options, inputs, names[0])
        weights = inputs.checkpoints[options.denoisers[names[0]].checkpoint]
        return denoiser_graph(load_denoiser(unet, weights, ema=ema), names, model)

    def text_encoder(of: TextParts) -> Graph:
        return text_encoder_graph(load_text_encoder(of.config, of.checkpoint), model)

    return [
        *([(("text_encoder",), partial(text_encoder, text))] if text else []),
        (("encoder",), lambda: encoder_graph(autoencoder(), model)),
        (("decoder",), lambda: decoder_graph(autoencoder(), model)),
        *((tuple(names), partial(denoiser, tuple(names))) for names in shared.values()),
    ]


def _uses_ema(options: BuildOptions, inputs: _Inputs, name: str) -> bool:
    """Take averaged weights unless the caller or the config says that there are none."""
    averaged = inputs.records[name].ema
    checkpoint = inputs.checkpoints[options.denoisers[name].checkpoint]
    if checkpoint.ours and averaged and not options.ema:
        raise CheckpointError(f"{checkpoint.path} holds averaged weights only; leave --no-ema out")
    return options.ema and averaged


def _digest(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of a file, or that of the digests of all files one after the other."""
    digests = [file_sha256(path) for path in checkpoint.files]
    return digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()


def _provenance(options: BuildOptions, inputs: _Inputs, text: TextParts | None) -> Provenance:
    digests = {path: _digest(checkpoint) for path, checkpoint in inputs.checkpoints.items()}
    by_graph = {name: digests[s.checkpoint] for name, s in options.denoisers.items()}
    by_graph["autoencoder"] = digests[inputs.autoencoder_checkpoint]
    if text is not None:
        by_graph["text_encoder"] = _digest(text.checkpoint)
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
        ema=any(_uses_ema(options, inputs, name) for name in inputs.records),
        lvdm_rt=version("lvdm-rt"),
        torch=torch.__version__.split("+")[0],
        notes=notes,
    )
