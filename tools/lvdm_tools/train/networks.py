"""Building networks from a config's `network` section."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from lvdm_engines.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

C = TypeVar("C")


def network_config(kind: type[C], fields: Mapping[str, Any]) -> C:
    """Fill a network's config class from plain fields.

    Raises:
        ConfigError: an unknown field, a wrong type or a size the network refuses.

    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ConfigError(
            f"network has the unknown field {', '.join(unknown)}; it knows {', '.join(known)}"
        )
    try:
        return msgspec.convert(dict(fields), kind)
    except (msgspec.ValidationError, ValueError) as err:
        raise ConfigError(f"network: {err}") from err


def check_divisible(size: tuple[int, int], frames: int, downsample: tuple[int, int, int]) -> None:
    """Refuse clips that the autoencoder cannot halve often enough.

    Raises:
        ConfigError: frames, height or width is no multiple of the downsampling.

    """
    for name, value, factor in zip(
        ("data.frames", "height of data.size", "width of data.size"),
        (frames, *size),
        downsample,
        strict=True,
    ):
        if value % factor:
            below, above = value - value % factor, value + factor - value % factor
            raise ConfigError(
                f"{name} is {value}, expected a multiple of the autoencoder's downsampling {factor}, "
                f"such as {above if not below else below}"
            )
