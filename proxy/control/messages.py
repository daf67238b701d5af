"""Records and standings as messages of the control API."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from proxy.pb.breakwater.v1 import control_pb2 as pb
from proxy.records.snapshot import encoded

_FIELDS = pb.Record.DESCRIPTOR.fields_by_name
_STANDING = pb.Standing.DESCRIPTOR.fields_by_name


def record(found: Mapping[str, Any]) -> pb.Record:
    """A record as a message: numbers that JSON has none for are NaN, unknown fields left out."""
    return pb.Record(**{name: _value(value) for name, value in found.items() if name in _FIELDS})


def plain(message: pb.Record) -> dict[str, Any]:
    """The inverse of `record`, ready for JSON."""
    found: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        value = getattr(message, name)
        if field.message_type is not None:
            value = {key: _number(each) for key, each in value.items()}
        found[name] = _number(value)
    return found


def policy(found: Mapping[str, Any]) -> pb.Policy:
    """What `Control.get_policy` answers as a message."""
    fields = {("has_previous" if name == "previous" else name): v for name, v in found.items()}
    return pb.Policy(**{name: _value(value) for name, value in fields.items()})


def change(found: Mapping[str, Any]) -> pb.PolicyChange:
    """What changing the policy answers as a message."""
    return pb.PolicyChange(**{name: _value(value) for name, value in found.items()})


def history(found: Mapping[str, Any]) -> pb.History:
    """What is known of query attacks as a message."""
    shared = found["shared"]
    return pb.History(
        remembered=found["remembered"],
        shared="" if shared is None else _value(str(shared["state"])),
        principals=[
            pb.Standing(**{name: _value(each[name]) for name in _STANDING if name in each})
            for each in found["principals"]
        ],
    )


async def as_json(found: Mapping[str, Any]) -> pb.Json:
    """A mapping as JSON text; made beside the loop, since it may hold 100,000s of numbers."""
    text = await asyncio.to_thread(encoded, found)
    return pb.Json(text=text.decode())


def _value(value: Any) -> Any:
    if value is None:
        return math.nan
    if isinstance(value, str):  # half a character pair is no UTF-8, and may be in a client's name
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, Mapping):
        return {_value(key): _value(each) for key, each in value.items()}
    return value


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
