"""One mapping of a configuration file, read field by field, so that nothing goes unnoticed."""

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from lvdm_engines.errors import ConfigError, quoted

C = TypeVar("C")

Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]

_REQUIRED: Any = object()
# to a whole value, as OmegaConf writes it: from the top, or with dots from where it stands
_REFERENCE = re.compile(r"\$\{\s*(\.*)((?:[\w-]+|\[[\w-]+\])(?:\.[\w-]+|\[[\w-]+\])*)\s*\}")
_MOST_REFERENCES = 16  # one to another
Place = tuple[str, ...]  # the keys that lead to a value from the top
_WORDS = {
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "true or false",
    "`array`": "a list of whole numbers",
}


class StrictMapping:
    """A mapping with a name; every field has to be read or fixed before `finish`.

    `path` names the mapping in messages, for instance `sky.yaml: model.params`.
    All readers raise ConfigError with that name. A value such as `${model.params.channels}` stands
    for what the whole file, `root`, has there, and `${.channels}` for a neighbour; `place` are the
    keys that lead from the root to here. A file without such values needs neither.
    """

    def __init__(self, raw: object, path: str, root: object = None, place: Place = ()) -> None:
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{path} is {_show(raw)}, expected a mapping")
        self._raw: Mapping[object, Any] = raw
        self._root = raw if root is None else root
        self._place = place
        self._known: set[object] = set()
        self.path = path

    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def section(self, name: str) -> "StrictMapping":
        """Return the mapping `name`."""
        raw = self._get(name, _REQUIRED)
        _, place = self._follow(name, self._raw[name], (*self._place, name))
        return StrictMapping(raw, self._where(name), self._root, place)

    def component(self, name: str) -> "StrictMapping":
        """Return the `params` of the mapping `name`; beside them it may hold a `target`."""
        whole = self.section(name)
        params = whole.section("params")
        whole.finish("target")
        return params

    def read(self, name: str, kind: Any, default: Any = _REQUIRED, expected: str = "") -> Any:
        """Return a value of a kind, or `default` where it is absent or null."""
        value = self._get(name, default)
        if value is default:
            return value
        try:  # YAML reads 1e-4 as text, which is accepted as a number
            return msgspec.convert(value, kind, strict=kind not in (float, Finite))
        except msgspec.ValidationError as err:
            self.refuse(name, expected or _one_of(kind) or _in_words(str(err)))

    def build(self, config: type[C], *required: str, **defaults: Any) -> C:
        """Make a config of its fields by name, each of the kind that it has there."""
        kinds = get_type_hints(config, include_extras=True)
        wanted = dict.fromkeys(required, _REQUIRED) | defaults
        return self.make(config, **{n: self.read(n, kinds[n], d) for n, d in wanted.items()})

    def make(self, config: type[C], **values: Any) -> C:
        """Make a config of values that were read here."""
        try:
            return config(**values)
        except ValueError as err:
            raise ConfigError(f"{self.path}: {err}") from err

    def fixed(self, **supported: Any) -> None:
        """Check fields that may be absent, but have one supported value each."""
        for name, value in supported.items():
            if self._get(name, value) != value:
                self.refuse(name, f"{_show(value)}, the only supported value")

    def finish(self, *ignored: str) -> None:
        """Refuse fields that nothing has read, except those that matter to training only."""
        known = self._known.union(ignored)
        unknown = [quoted(name).strip("'") for name in self._raw if name not in known]
        if unknown:
            raise ConfigError(
                f"{self.path} has unknown parameters: {', '.join(unknown[:12])}; "
                "remove them if the network does not depend on them"
            )

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise ConfigError for the value of `name`."""
        value, _ = self._follow(name, self._raw[name], (*self._place, name))
        raise ConfigError(f"{self._where(name)} is {_show(value)}, expected {expected}")

    def _get(self, name: str, default: Any) -> Any:
        self._known.add(name)
        value, place = self._follow(name, self._raw.get(name), (*self._place, name))
        if isinstance(value, list):
            parts = enumerate(value)
            value = [self._follow(name, part, (*place, str(i)))[0] for i, part in parts]
        if value is None and default is _REQUIRED:
            raise ConfigError(f"{self._where(name)} is missing")
        return default if value is None else value

    def _follow(
        self, name: str, value: Any, place: Place, budget: Iterator[int] | None = None
    ) -> tuple[Any, Place]:
        """Follow references to a value and its place in the file, as many as the budget has.

        Only what is read is resolved, so others may lead nowhere.
        """
        budget = iter(range(_MOST_REFERENCES)) if budget is None else budget
        while isinstance(value, str) and "${" in value:
            if next(budget, None) is None:
                where = self._where(name)
                raise ConfigError(f"{where} refers to itself; write the value in its place")
            reference = _REFERENCE.fullmatch(value)
            if reference is None:
                raise ConfigError(
                    f"{self._where(name)} is {quoted(value)}; only a reference to a whole value, "
                    "such as ${model.params.channels}, is followed, no function and no environment:"
                    " write the value in its place"
                )
            dots, keys = reference.groups()
            if len(dots) > len(place):
                raise ConfigError(
                    f"{self._where(name)} refers to {quoted(dots + keys)}, above the whole file; "
                    "write the value in its place"
                )
            start = place[: -len(dots)] if dots else ()
            wanted = (*start, *re.findall(r"[\w-]+", keys))
            value, place = self._looked_up(name, wanted, dots + keys, budget)
        return value, place

    def _looked_up(
        self, name: str, wanted: Place, told: str, budget: Iterator[int]
    ) -> tuple[Any, Place]:
        """Return what the file has at a place, the way to which may lead through references."""
        node: Any = self._root
        place: Place = ()
        for part in wanted:
            node, place = self._follow(name, node, place, budget)
            node = dict(enumerate(node)) if isinstance(node, list) else node
            key = int(part) if part.isdecimal() and len(part) < 9 else part
            keys = [k for k in (part, key) if isinstance(node, Mapping) and k in node]
            if not keys:
                raise ConfigError(
                    f"{self._where(name)} refers to {quoted(told)}, which is not in the file; "
                    "write the value in its place"
                )
            node, place = node[keys[0]], (*place, part)
        return node, place

    def _where(self, name: str) -> str:
        return f"{self.path}{'.' if ': ' in self.path else ': '}{name}"


def _one_of(kind: Any) -> str:
    """List the values of a kind that has but a few, of which msgspec names none."""
    return " or ".join(get_args(kind)) if get_origin(kind) is Literal else ""


def _in_words(fault: str) -> str:
    """Say what msgspec expected, such as `Expected `int`, got `str` - at `$[0]``."""
    wanted = fault.partition(" - at ")[0].partition(", got ")[0].removeprefix("Expected ")
    for kind, words in _WORDS.items():
        wanted = wanted.replace(kind, words)
    return wanted


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else quoted(value)
