"""Numbers on a command line, within bounds; knows click and what sizes a batch may have."""

import math
from typing import Any

import click

from lvdm_engines.errors import OptionsError, quoted


class WholeRange(click.IntRange):
    """A whole number in a range."""

    name = "whole number"  # in click's messages


class NumberRange(click.FloatRange):
    """A number in a range; click itself takes NaN for one inside of every range."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; raises what click shows for any other."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{quoted(value)} is not a number.", param, ctx)
        return number


class BatchRange(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on
    """Sizes of a batch as MIN:OPT:MAX, or one number for all three."""

    name = "MIN:OPT:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the `Range`; raises what click shows for anything else."""
        from lvdm_engines.backends.plan_facts import Range

        if isinstance(value, Range):
            return value
        try:
            return Range.parse(str(value))
        except OptionsError as err:
            self.fail(str(err), param, ctx)
