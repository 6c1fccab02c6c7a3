"""What a bundle is made from: configs and checkpoints, read and told apart before the first graph.

Knows files and their sums; nothing of graphs.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from lvdm_engines.bundle import file_sha256
from lvdm_engines.errors import CheckpointError, ConfigError, quoted
from lvdm_engines.manifest import Precision
from lvdm_export.checkpoint.keys import Checkpoint, open_checkpoint
from lvdm_export.checkpoint.noise_table import with_table
from lvdm_export.checkpoint.shards import is_there
from lvdm_export.config.model_json import ModelRecord, scaled
from lvdm_export.config.yaml_config import Description, read_config


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
class Inputs:
    """Everything that was read before the first graph is exported."""

    checkpoints: dict[Path, Checkpoint]
    records: dict[str, ModelRecord]
    autoencoder: ModelRecord
    autoencoder_config: Path
    autoencoder_checkpoint: Path


def read_inputs(options: BuildOptions) -> Inputs:
    """Read configs, and the headers of checkpoints. Raises ConfigError, CheckpointError."""
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
    return Inputs(checkpoints, records, autoencoder, told, path)


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


def uses_ema(options: BuildOptions, inputs: Inputs, name: str) -> bool:
    """Take averaged weights unless the caller or the config says that there are none."""
    averaged = inputs.records[name].ema
    checkpoint = inputs.checkpoints[options.denoisers[name].checkpoint]
    if checkpoint.ours and averaged and not options.ema:
        raise CheckpointError(f"{checkpoint.path} holds averaged weights only; leave --no-ema out")
    return options.ema and averaged


@contextmanager
def naming(*configs: Path) -> Iterator[None]:
    """Put the names of configs before what is wrong with them."""
    try:
        yield
    except ConfigError as err:
        named = ", ".join(dict.fromkeys(map(str, configs)))
        raise ConfigError(f"{named}: {err}") from err


def digest(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of a file, or that of the digests of all files one after the other."""
    digests = [file_sha256(path) for path in checkpoint.files]
    return digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()


def check_sums(expected: Collection[str], checkpoints: Iterable[Checkpoint]) -> None:
    """Refuse checkpoints other than those that were asked for. Raises CheckpointError."""
    expected = [known.lower() for known in expected]
    for checkpoint in checkpoints:
        got = digest(checkpoint)
        if got not in expected:
            raise CheckpointError(
                f"{checkpoint.path} has sha256 {got}, expected {quoted(' or '.join(expected))} of "
                "--sha256; take the file that you mean"
            )
