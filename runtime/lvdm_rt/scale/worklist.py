"""Work lists: what each line asks for, checked as far as it can be before an engine is opened.

Knows lines, options and names of files; nothing of pipelines, or of what is done already.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lvdm_engines.errors import LvdmError, OptionsError, cause, quoted
from lvdm_engines.manifest import Manifest
from lvdm_rt.checks import check_range
from lvdm_rt.commands.listing import lines_of
from lvdm_rt.commands.making import VideoCall, check_condition, check_early
from lvdm_rt.options import GenerateOptions, resolve
from lvdm_rt.scale.batch_done import digest_of
from lvdm_rt.text.prompts import check_prompted
from lvdm_rt.video import MAX_PIXELS, output_kind
from lvdm_rt.video.sidecar import file_facts

_OF_THE_RUN = ("bundle", "backend", "threads", "precision", "device", "force")
_EXPECTED = "expected a prompt, or JSON with name, condition and options of generate"
_TEXTS = {"prompt", "prompts"}


@dataclass(frozen=True, kw_only=True)
class ForAll:
    """What every job has that does not say otherwise; `options` are those of `GenerateOptions`.

    `form` is the format of names without a suffix.
    """

    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    condition: Path | None = None
    max_pixels: int = MAX_PIXELS
    join: bool = False
    crf: int | None = None
    force: bool = False
    form: str = "mp4"


@dataclass(frozen=True)
class BatchJob:
    """One job: the line that asks for it, a call that makes it alone, and a digest of all that."""

    line: int | None
    name: str
    call: VideoCall
    digest: str


@dataclass(frozen=True)
class BadJob:
    """A line that no job can be made of, and why."""

    line: int | None
    name: str | None
    reason: str


class _Own(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a line may say beside the options of a video."""

    name: str | None = None
    condition: str | None = None
    max_pixels: int | None = None
    join: bool | None = None
    crf: int | None = None


def read_jobs(
    source: Path | range, common: ForAll, manifest: Manifest
) -> Iterator[BatchJob | BadJob]:
    """Yield the jobs of a list, or one for each seed. Raises OptionsError for no list at all."""
    reader = _LineReader(source, common, manifest)
    if isinstance(source, range):
        for seed in source:
            yield reader.job(None, f"seed-{seed:06d}", {"seed": seed})
        return
    for number, line in lines_of(source):
        try:
            told = _told(line)
        except (msgspec.DecodeError, ValueError, RecursionError) as err:
            yield BadJob(number, None, f"{err}; {_EXPECTED}")
        else:
            yield reader.job(number, f"line-{number:06d}", told)


def _told(line: bytes) -> dict[str, Any]:
    """Return what a line says: JSON if it begins with a brace, else a prompt."""
    if line.lstrip().startswith(b"{"):
        return msgspec.json.decode(line, type=dict[str, Any])
    return {"prompt": line.decode().strip()}


class _LineReader:
    """Makes jobs of what lines say; keeps names that are taken, and what conditions hold."""

    def __init__(self, source: Path | range, common: ForAll, manifest: Manifest) -> None:
        self._folder = Path() if isinstance(source, range) else source.parent
        self._common, self._manifest = common, manifest
        self._taken: dict[str, int | None] = {}
        self._contents: dict[Path, str] = {}

    def job(self, line: int | None, usual: str, told: dict[str, Any]) -> BatchJob | BadJob:
        """Return the job of a line, which is named `usual` if it gives no name."""
        name = None
        try:
            own = _own(told)
            name = _name(usual if own.name is None else own.name, self._common.form)
            self._take(name, line)
            call = self._call(name, own, told)
            check_condition(call.condition, call.names)
            check_early(call, self._manifest.model)
            digest = digest_of(call, self._manifest, self._content(call.condition))
        except (LvdmError, msgspec.ValidationError) as err:
            return BadJob(line, name, str(err))
        except OSError as err:
            return BadJob(line, name, f"{err.filename}: {cause(err)}")
        return BatchJob(line, name, call, digest)

    def _take(self, name: str, line: int | None) -> None:
        if name in self._taken:
            raise OptionsError(
                f"the name {name} is that of line {self._taken[name]} already; give it another"
            )
        self._taken[name] = line

    def _call(self, name: str, own: _Own, told: dict[str, Any]) -> VideoCall:
        common = self._common
        above = {k: v for k, v in common.options.items() if k not in _TEXTS or not _TEXTS & {*told}}
        rest = {k: v for k, v in told.items() if k not in _Own.__struct_fields__}
        options = msgspec.convert({**above, **rest}, GenerateOptions)
        condition = common.condition
        if "condition" in told:
            condition = None if own.condition is None else self._folder / own.condition
        join = common.join if own.join is None else own.join
        _check_alone(own, rest, options, condition, join=join)
        settings = resolve(options, self._manifest)
        check_prompted(settings.prompts, self._manifest)
        out = str(common.out / name)
        crf = common.crf if output_kind(out) in ("mp4", "webm") else None
        most = common.max_pixels if own.max_pixels is None else own.max_pixels
        check_range("max_pixels", most, 1, 1 << 62)
        return VideoCall(
            names=(out,),
            asked=(settings,),
            each=True,
            condition=condition,
            max_pixels=most,
            join=join and condition is not None,
            crf=own.crf if "crf" in told else crf,
            resume=True,
            force=common.force,
        )

    def _content(self, condition: Path | None) -> str | None:
        """Return the sha256 of a condition, read once. Raises OSError."""
        if condition is None:
            return None
        if condition not in self._contents:
            self._contents[condition] = file_facts(condition)["sha256"]
        return self._contents[condition]


def _own(told: dict[str, Any]) -> _Own:
    """Return what a line says beside the options of a video. Raises OptionsError."""
    for name in _OF_THE_RUN:
        if name in told:
            raise OptionsError(f"got {name} in a line, which holds for all: give --{name} instead")
    if "videos" in told:
        raise OptionsError("got videos in a line, which is one video; write a line for each")
    if "out" in told:
        raise OptionsError("got out in a line; give its name in the common folder as name")
    known = {*_Own.__struct_fields__, *GenerateOptions.__struct_fields__}
    for name in told:
        if name not in known:
            raise OptionsError(f"got {quoted(name)}, which no job has; {_EXPECTED}")
    return msgspec.convert({k: told[k] for k in _Own.__struct_fields__ if k in told}, _Own)


def _name(name: str, form: str) -> str:
    """Return the name of a file. Raises OptionsError for what is none, or hidden."""
    plain = name.isprintable() and "\\" not in name and Path(name).name == name
    if not name or not plain or name.startswith("."):
        raise OptionsError(
            f"got name {quoted(name)}, expected one of a file in the common folder: no slash, no "
            "dot in front"
        )
    return name if form == "png" or Path(name).suffix else f"{name}.{form}"


def _check_alone(
    own: _Own,
    rest: Mapping[str, Any],
    options: GenerateOptions,
    condition: Path | None,
    *,
    join: bool,
) -> None:
    """Refuse what contradicts itself whatever the model is. Raises OptionsError."""
    asked = {"join": own.join, "fade": rest.get("fade")}
    for name, value in asked.items():
        if value and condition is None:
            raise OptionsError(f"{name} belongs to a condition, which was not given")
    if join and condition is not None and options.fps is not None:
        raise OptionsError("join keeps the pace of the condition; leave out fps")
