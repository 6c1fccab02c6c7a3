"""Numbers on a command line, within bounds; knows click and nothing else."""

import math
from typing import Any

import click

from lvdm_engines.errors import quoted


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
