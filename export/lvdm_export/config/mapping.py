"""One mapping of a configuration file, read field by field, so that nothing goes unnoticed."""

from collections.abc import Mapping
from typing import Any, NoReturn, get_type_hints

import msgspec

from lvdm_engines.errors import ConfigError

_REQUIRED: Any = object()
_WORDS: dict[object, str] = {
    int: "a whole number",
    int | None: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[int, ...]: "a list of whole numbers",
}


class StrictMapping:
    """A mapping with a name; every field has to be read, fixed or ignored before `finish`.

    `path` names the mapping in messages, for instance `sky.yaml: model.params`.
    All readers raise ConfigError with that name.
    """

    def __init__(self, raw: object, path: str) -> None:
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{path} is {_show(raw)}, expected a mapping")
        self._raw: Mapping[str, Any] = raw
        self._known: set[str] = set()
        self.path = path

    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def peek(self, name: str) -> Any:
        """Return the raw value, or None, without counting it as read."""
        return self._raw.get(name)

    def section(self, name: str) -> "StrictMapping":
        """Return the mapping `name`."""
        return StrictMapping(self._get(name, _REQUIRED), self._where(name))

    def read(self, name: str, kind: Any, default: Any = _REQUIRED) -> Any:
        """Return a value of a kind, or `default` where it is absent or null."""
        value = self._get(name, default)
        if value is default:
            return value
        try:  # YAML reads 1e-4 as text, which is accepted as a number
            return msgspec.convert(value, kind, strict=kind is not float)
        except msgspec.ValidationError:
            self.refuse(name, _WORDS[kind])

    def fields(self, config: type, *required: str, **defaults: Any) -> dict[str, Any]:
        """Return fields of a network's config class by name, each of the kind it has there."""
        kinds = get_type_hints(config)
        wanted = dict.fromkeys(required, _REQUIRED) | defaults
        return {name: self.read(name, kinds[name], default) for name, default in wanted.items()}

    def fixed(self, **supported: Any) -> None:
        """Check fields that may be absent, but have one supported value each."""
        for name, value in supported.items():
            got = self._get(name, None)
            if got is not None and got != value:
                self.refuse(name, f"{_show(value)}, the only supported value")

    def ignore(self, *names: str) -> None:
        """Skip fields that matter to training only."""
        self._known.update(names)

    def finish(self) -> None:
        """Refuse fields that nothing has read."""
        unknown = [str(name) for name in self._raw if name not in self._known]
        if unknown:
            raise ConfigError(
                f"{self.path} has unknown parameters: {', '.join(unknown)}; "
                "remove them if the network does not depend on them"
            )

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise ConfigError for the value of `name`."""
        raise ConfigError(f"{self._where(name)} is {_show(self._raw[name])}, expected {expected}")

    def _get(self, name: str, default: Any) -> Any:
        self._known.add(name)
        value = self._raw.get(name)
        if value is None and default is _REQUIRED:
            raise ConfigError(f"{self._where(name)} is missing")
        return default if value is None else value

    def _where(self, name: str) -> str:
        return f"{self.path}{'.' if ': ' in self.path else ': '}{name}"


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else repr(value)[:60]
