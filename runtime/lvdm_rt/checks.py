"""Values of a request that are out of range, and how they are told; knows no option by name."""

import math

from lvdm_engines.errors import OptionsError, quoted


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raise OptionsError unless `value` is a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionsError(
            f"got {name} {quoted(value)}, expected a whole number from {low} to {high}"
        )


def check_number(name: str, value: float, low: float, high: float, meaning: str = "") -> None:
    """Raise OptionsError unless `value` is a number from `low` to `high`."""
    if not _is_number(value) or not low <= value <= high:
        expected = meaning or f"a number from {low:g} to {high:g}"
        raise OptionsError(f"got {name} {quoted(value)}, expected {expected}")


def check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise OptionsError unless `value` is among those that are known."""
    if value not in known:
        raise OptionsError(f"got {name} {quoted(value)}, expected one of {', '.join(known)}")


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False
