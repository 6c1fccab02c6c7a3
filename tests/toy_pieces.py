"""Pieces of work for workers of a cluster that need no model, and import nothing heavy."""

import os
import time
from pathlib import Path

from lvdm_engines.errors import BundleError


def hold_nothing():
    """What a worker opens that needs nothing."""
    return os.getpid()


def hold_badly():
    """An opening that fails."""
    raise BundleError("nowhere: got neither a directory nor a name")


def rest(held, seconds):
    """Take a fixed time; return which process did."""
    time.sleep(seconds)
    return held


def square(_, number):
    """Compute something, but not of three."""
    if number == 3:
        raise BundleError("three is too many")
    return number * number


def echo(_, data):
    """Give back what came."""
    return data


def die_once(_, marker):
    """End the worker, unless it was done before."""
    if Path(marker).exists():
        return "alive"
    Path(marker).touch()
    os._exit(1)


def die(_):
    """End the worker."""
    os._exit(1)
