"""Parts of other distributions, found by the entry points they declare when they are installed.

What they offer is read once a process; a part's module is imported only when it is asked for.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from purifiers.base import Kind

T = TypeVar("T")

_NAME = re.compile("[a-z_]+")


@cache
def entries(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group in every distribution installed when first asked."""
    return tuple(entry_points(group=group))


@dataclass(frozen=True, slots=True)
class Plugin(Generic[T]):
    """What one distribution offers under one name."""

    name: str
    distribution: str
    part: type[T] | None
    """None where it cannot be used."""
    problem: str = ""
    """Why not."""


class Plugins(Generic[T]):
    """The parts that distributions offer under one entry point group.

    Args:
        group: of the entry points; each has the part's own name, and refers to its class.
        base: what every part is a subclass of.
        declares: class attributes a part must have besides its name.
        error: raised for what cannot be used, with a text that names the distribution.
    """

    def __init__(
        self, group: str, base: type[T], declares: Mapping[str, type], error: type[Exception]
    ) -> None:
        self._group = group
        self._base = base
        self._declares = declares
        self._error = error

    def names(self) -> list[str]:
        """The names offered, sorted, whether or not they can be used."""
        return sorted({entry.name for entry in entries(self._group)})

    def find(self, name: str, built_in: Container[str]) -> Plugin[T] | None:
        """What is offered under a name, loaded; None where nothing is.

        Raises:
            the given error: it takes a built-in part's name or another distribution's, cannot be
                imported, or is no such part.
        """
        found = [entry for entry in entries(self._group) if entry.name == name]
        if not found:
            return None
        owners = " and ".join(sorted({_owner(entry) for entry in found}))
        if name in built_in:
            raise self._error(
                f"{owners}: {name!r} is the name of a built-in part; plug-ins need names of their "
                "own"
            )
        if len(found) > 1:
            raise self._error(f"{owners}: both offer {name!r}; uninstall one of them")
        with self.blaming(owners, name):
            part = found[0].load()
        self._check(owners, name, part)
        return Plugin(name, owners, part)

    def each(self, built_in: Container[str]) -> Iterator[Plugin[T]]:
        """Everything offered, by name, with what is wrong with it where something is."""
        for name in self.names():
            try:
                plugin = self.find(name, built_in)
            except self._error as error:
                owner, _, problem = str(error).partition(": ")
                plugin = Plugin(name, owner, None, problem)
            if plugin is not None:
                yield plugin

    @contextmanager
    def blaming(self, owner: str, name: str) -> Iterator[None]:
        """Turn whatever a distribution's code raises into an error that names it."""
        try:
            yield
        except Exception as problem:
            # Code of other people may raise anything, and must not end a proxy that reloads.
            told = str(problem)
            if not isinstance(problem, self._error):
                told = f"{problem.__class__.__name__}: {told}"
            raise self._error(f"{owner}: {name} cannot be used: {told}") from problem

    def _check(self, owner: str, name: str, part: Any) -> None:
        base = self._base.__name__
        if not (isinstance(part, type) and issubclass(part, self._base)):
            raise self._error(f"{owner}: {name} is {part!r}, not a subclass of {base}")
        if inspect.isabstract(part):
            lacking = ", ".join(sorted(getattr(part, "__abstractmethods__", ())))
            raise self._error(f"{owner}: {name} is abstract: it does not define {lacking}")
        own = getattr(part, "name", None)
        if own != name or not _NAME.fullmatch(name):
            raise self._error(
                f"{owner}: {part.__name__}.name is {own!r}, the entry point's {name!r}; they must "
                "be equal, of lower-case letters and underscores"
            )
        for attribute, kind in self._declares.items():
            if not isinstance(getattr(part, attribute, None), kind):
                raise self._error(f"{owner}: {name} has no {attribute} of type {kind.__name__}")
        kinds = getattr(part, "kinds", None)
        if not isinstance(kinds, frozenset) or not kinds or not kinds <= frozenset(Kind):
            raise self._error(f"{owner}: {name}.kinds is {kinds!r}, not a frozenset of Kind")


def _owner(entry: EntryPoint) -> str:
    return "an unnamed distribution" if entry.dist is None else entry.dist.name
