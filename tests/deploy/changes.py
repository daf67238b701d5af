"""Ways to break rendered objects, for the proof that each policy catches something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.deploy.rendered import Object, breakwater, config_of, defended, of_kind, triton

Change = Callable[[list[Object]], None]


def at(*path: str | int, to: Any = None, of: Callable[[list[Object]], Object]) -> Change:
    """Set what is at a path, or take it away where `to` is None."""

    def change(objects: list[Object]) -> None:
        found: Any = of(objects)
        for key in path[:-1]:
            found = found.setdefault(key, {}) if isinstance(key, str) else found[key]
        if to is None:
            del found[path[-1]]
        else:
            found[path[-1]] = to

    return change


def sidecar(*path: str | int, to: Any = None) -> Change:
    def of(objects: list[Object]) -> Object:
        container = breakwater(defended(objects)[1])
        assert container is not None
        return container

    return at(*path, to=to, of=of)


def server(*path: str | int, to: Any = None) -> Change:
    return at(*path, to=to, of=lambda objects: triton(defended(objects)[1]))


def pod(*path: str | int, to: Any = None) -> Change:
    return at(*path, to=to, of=lambda objects: defended(objects)[1])


def one(kind: str, *path: str | int, to: Any = None) -> Change:
    return at(*path, to=to, of=lambda objects: of_kind(objects, kind)[0])


def flag(text: str) -> Change:
    """Hand Triton one more flag."""
    return lambda objects: triton(defended(objects)[1])["args"].append(text)


def more(kind: str, *path: str | int, item: Any) -> Change:
    """Append to a list of the first object of a kind."""

    def change(objects: list[Object]) -> None:
        found: Any = of_kind(objects, kind)[0]
        for key in path:
            found = found[key]
        found.append(item)

    return change


def configured(old: str, new: str) -> Change:
    """Replace a text in Breakwater's configuration."""

    def change(objects: list[Object]) -> None:
        text = config_of(objects)
        assert old in text
        for found in of_kind(objects, "ConfigMap"):
            if found["data"].get("breakwater.yaml") == text:
                found["data"]["breakwater.yaml"] = text.replace(old, new)

    return change


def without(kind: str) -> Change:
    """Take all objects of a kind away."""

    def change(objects: list[Object]) -> None:
        objects[:] = [found for found in objects if found["kind"] != kind]

    return change


def an(found: Object) -> Change:
    """One object more."""
    return lambda objects: objects.append(found)
