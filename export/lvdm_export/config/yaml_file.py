"""YAML files of unknown origin as plain containers, within bounds.

Knows nothing of what they say.
"""

from pathlib import Path
from typing import Any

import yaml

from lvdm_engines.errors import ConfigError, one_line
from lvdm_export.config.bounded_file import read_bounded

_MOST = 10_000  # nodes, counted wherever an alias repeats them

# What files of another kind make the parser raise; it only catches some of its own mistakes.
_FAULTS = (
    yaml.YAMLError, RecursionError, AttributeError, IndexError, KeyError, TypeError, ValueError,
    OverflowError,
)  # fmt: skip


class _BoundedLoader(yaml.SafeLoader):
    """Refuses a few lines of aliases to aliases, which stand for billions of nodes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._behind: dict[str, int] = {}  # nodes by anchor

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        alias, before = isinstance(event, yaml.AliasEvent), self._nodes
        self._nodes += self._behind.get(event.anchor, _MOST) if alias else 1
        if self._nodes > _MOST:
            raise yaml.YAMLError(f"more than {_MOST} nodes, or an alias of what it stands in")
        node = super().compose_node(parent, index)
        if event.anchor is not None and not alias:
            self._behind[event.anchor] = self._nodes - before
        return node


def read_yaml(path: Path) -> object:
    """Read one YAML document; tags that name anything but plain values are refused.

    Raises ConfigError: unreadable, too large, not YAML.
    """
    data = read_bounded(path)
    try:
        return yaml.load(data.decode(), _BoundedLoader)  # noqa: S506 - it is a SafeLoader
    except _FAULTS as err:
        raise ConfigError(f"{path} is not YAML: {one_line(str(err), 160)}") from err
