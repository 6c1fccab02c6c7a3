"""Building network configs from a run's `network` section."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from lvdm_engines.errors import ConfigError

C = TypeVar("C")
N = TypeVar("N")


def network_config(kind: type[C], fields: Mapping[str, Any]) -> C:
    """Fill a network's config class from plain fields.

    Raises ConfigError: an unknown field, a wrong type or a size the network refuses.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ConfigError(
            f"network has the unknown field {', '.join(unknown)}; it knows {', '.join(known)}"
        )
    for name, value in fields.items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(n, int) and not isinstance(n, bool) and n < 1 for n in numbers):
            raise ConfigError(f"network: {name} is {value}, expected 1 or more")
    try:
        return msgspec.convert(dict(fields), kind)
    except (msgspec.ValidationError, ValueError) as err:
        raise ConfigError(f"network: {err}") from err


def build(network: Callable[[C], N], config: C) -> N:
    """Make a network of a config.

    Raises ConfigError: sizes that do not fit together.
    """
    try:
        return network(config)
    except (ValueError, RuntimeError, ArithmeticError, LookupError) as err:
        raise ConfigError(f"network: {err}; got {config}, change its sizes") from err
