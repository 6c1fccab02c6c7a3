"""Building network configs from a run's `network` section."""

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import torch
from torch import nn

from lvdm_engines.errors import ConfigError, one_line, quoted
from lvdm_export.nets.sizes import MOST_PARAMETERS

C = TypeVar("C")
N = TypeVar("N")

_QUOTES = "'"


def network_config(kind: type[C], fields: Mapping[str, Any]) -> C:
    """Fill a network's config class from plain fields.

    Raises ConfigError: an unknown field, a wrong type or a size the network refuses.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ConfigError(
            f"network has the unknown field {quoted(unknown[0]).strip(_QUOTES)}; "
            f"it knows {', '.join(known)}"
        )
    for name, value in fields.items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(n, int) and not isinstance(n, bool) and n < 1 for n in numbers):
            raise ConfigError(f"network: {name} is {quoted(value)}, expected 1 or more")
    try:
        return msgspec.convert(dict(fields), kind)
    except (msgspec.ValidationError, ValueError) as err:
        raise ConfigError(f"network: {one_line(str(err), 300)}") from err


def build(network: Callable[[C], N], config: C) -> N:
    """Make a network of a config.

    Raises ConfigError: sizes that do not fit together.
    """
    try:
        return network(config)
    except (ValueError, RuntimeError, ArithmeticError, LookupError) as err:
        told = one_line(str(err), 300)
        raise ConfigError(f"network: {told}; got {config}, change its sizes") from err


def check_affordable(network: nn.Module, device: torch.device, field: str = "network") -> None:
    """Refuse a network that cannot be trained here, told by its shapes (on the device meta).

    It is made in the machine's memory, where it also stays if `device` is the CPU.

    Raises ConfigError: too many parameters.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    each = 16 if device.type == "cpu" else 4  # with gradient and both moments, or alone
    most = min(MOST_PARAMETERS, _memory() // each)
    if parameters > most:
        raise ConfigError(
            f"{field} would have {parameters:.2g} parameters, expected at most {most:.2g} on this "
            "machine; lower its channels or levels"
        )


def _memory() -> int:
    """Return the machine's memory in bytes."""
    if not hasattr(os, "sysconf"):  # on Windows
        return sys.maxsize
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
