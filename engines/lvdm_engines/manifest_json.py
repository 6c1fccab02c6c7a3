"""The manifest as JSON: reading with one clear line for whatever is wrong, and writing."""

import re
from typing import Any, get_args

import msgspec

from lvdm_engines.defaults import SamplerName
from lvdm_engines.errors import BundleError, quoted
from lvdm_engines.manifest import SCHEMA, Dtype, Manifest, Precision, ScheduleKind

_CHOICES = {"dtype": Dtype, "precision": Precision, "sampler": SamplerName, "kind": ScheduleKind}


class _SchemaOnly(msgspec.Struct):
    schema: int


def parse_manifest(data: bytes, source: str = "manifest.json") -> Manifest:
    """Read a manifest from JSON; `source` names it in messages.

    Raises BundleError for broken JSON, a newer schema, unknown or impossible fields.
    """
    try:
        schema = msgspec.json.decode(data, type=_SchemaOnly).schema
        if schema != SCHEMA:
            raise BundleError(
                f"{source}: got schema {quoted(schema)}, expected {SCHEMA}; "
                + ("upgrade lvdm-rt" if schema > SCHEMA else "export the bundle again")
            )
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.ValidationError as err:
        raise BundleError(
            f"{source}: {_explain(data, str(err))}; correct it or export the bundle again"
        ) from err
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise BundleError(
            f"{source}: got damaged JSON ({err}), expected a manifest; export the bundle again"
        ) from err


def format_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as indented JSON, checked by reading it back.

    Raises BundleError where a field does not have its declared type.
    """
    try:
        data = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    except (TypeError, msgspec.MsgspecError) as err:
        raise BundleError(
            f"manifest of {quoted(manifest.name)} cannot be written as JSON: {err}; use plain "
            "numbers, strings, lists and dicts"
        ) from err
    parse_manifest(data, f"manifest of {quoted(manifest.name)}")
    return data


def _explain(data: bytes, message: str) -> str:
    """Add what was received and what could stand there, as far as the message's path leads."""
    found = re.search(r"at `\$([^`]*)`$", message)
    if found is None or "[...]" in message:
        return message
    keys = re.findall(r"\.(\w+)|\[(\d+)\]", found[1])
    try:
        value: Any = msgspec.json.decode(data)
        for key, index in keys:
            value = value[key] if key else value[int(index)]
    except (KeyError, IndexError, TypeError, msgspec.DecodeError):
        return message
    if message.startswith("Invalid enum value") and keys[-1][0] in _CHOICES:
        return f"{message}, expected one of {', '.join(get_args(_CHOICES[keys[-1][0]]))}"
    told = "got" in message or isinstance(value, dict | list)
    return message if told else f"{message}, got {quoted(value)}"
