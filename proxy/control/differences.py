"""What differs between two configurations, for people: `resnet50.fpr: 0.01 -> 0.02`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from proxy.config import Config

MAX_CHANGES = 200
"""Differences told; a person reads no more."""
MAX_VALUE = 60
"""Characters told of a value."""

_UNSET = object()


class Difference(NamedTuple):
    """One setting, the same in neither configuration."""

    path: tuple[str, ...]
    text: str


def differences(old: Config, new: Config) -> list[Difference]:
    """Every setting that differs, in the order of the file's fields."""
    return list(_compare((), old.model_dump(mode="json"), new.model_dump(mode="json")))


def changes(found: list[Difference]) -> list[str]:
    """The differences as lines, with how many more there are."""
    lines = [each.text for each in found[:MAX_CHANGES]]
    hidden = len(found) - len(lines)
    return [*lines, f"... and {hidden} more"] if hidden else lines


def _compare(path: tuple[str, ...], old: Any, new: Any) -> Iterator[Difference]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _compare((*path, key), old.get(key, _UNSET), new.get(key, _UNSET))
    elif len(path) == 2 and path[0] == "models" and _UNSET in (old, new):
        yield Difference(path, f"{path[1]}: {_arrival(old, new)}")
    elif _is_parts(old) and _is_parts(new) and (said := _parts(old, new)):
        yield Difference(path, f"{_name(path)}: {said}")
    else:
        yield Difference(path, f"{_name(path)}: {_shown(old)} -> {_shown(new)}")


def _arrival(old: Any, new: Any) -> str:
    if old is _UNSET:
        return f"added, mode {new['mode']}, action {new['action']}"
    return "removed: its requests pass as those of an unlisted model"


def _is_parts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, Mapping) and "name" in v for v in value)


def _parts(old: list[Any], new: list[Any]) -> str:
    """Which parts come and go; empty where it is their order or parameters that change."""
    before, after = [str(part["name"]) for part in old], [str(part["name"]) for part in new]
    gone = [f"-{name}" for name in before if name not in after]
    come = [f"+{name}" for name in after if name not in before]
    return " ".join(gone + come)


def _name(path: tuple[str, ...]) -> str:
    return ".".join(path[1:] if path[0] == "models" else path)


def _shown(value: Any) -> str:
    if value is _UNSET:
        return "unset"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
