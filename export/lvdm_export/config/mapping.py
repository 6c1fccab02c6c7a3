"""One mapping of a configuration file, read field by field, so that nothing goes unnoticed."""

from collections.abc import Mapping
from typing import Any, NoReturn

from lvdm_engines.errors import ConfigError

_REQUIRED = object()


class Section:
    """A mapping with a name; every field has to be read, fixed or ignored before `finish`.

    `path` names the section in messages, for instance `sky.yaml: model.params`.
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

    def section(self, name: str) -> "Section":
        """Return the mapping `name`."""
        return Section(self._get(name, _REQUIRED), self._where(name))

    def whole(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return a whole number, or `default` where it is absent or null."""
        value = self._get(name, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, "a whole number")
        return value

    def number(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return a float, or `default`; YAML reads 1e-4 as text, which is accepted."""
        value = self._get(name, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            self.refuse(name, "a number")
        try:
            return float(value)
        except ValueError:
            self.refuse(name, "a number")

    def switch(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return a bool, or `default`."""
        value = self._get(name, default)
        if value is not default and not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def wholes(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return a tuple of whole numbers, or `default`."""
        value = self._get(name, default)
        if value is default:
            return value
        if not isinstance(value, list) or any(
            isinstance(item, bool) or not isinstance(item, int) for item in value
        ):
            self.refuse(name, "a list of whole numbers")
        return tuple(value)

    def fixed(self, **supported: Any) -> None:
        """Check fields that may be absent, but have one supported value each."""
        for name, value in supported.items():
            found = self._get(name, None)
            if found is not None and found != value:
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
