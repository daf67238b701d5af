"""Building registered parts from configuration, with errors that name what is valid."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from purifiers.plugins import Plugins

T = TypeVar("T")


def construct(
    registry: Mapping[str, type[T]],
    kind: str,
    name: str,
    params: Mapping[str, Any] | None,
    error: type[Exception],
    plugins: Plugins[T],
) -> T:
    """Return `registry[name](**params)`, or the same of a plug-in.

    Args:
        registry: name -> class.
        kind: what the registry holds, for the error's text.
        name: the name looked up.
        params: keyword parameters of the class.
        error: what to raise for an unknown name or parameter.
        plugins: looked at for names the registry lacks.
    """
    plugin = plugins.find(name, registry)
    if plugin is not None and plugin.part is not None:
        _check(plugin.part, name, params, error)
        with plugins.blaming(plugin.distribution, name):
            return plugin.part(**(params or {}))
    if name not in registry:
        there = ", ".join([*registry, *plugins.names()])
        raise error(f"unknown {kind} {name!r}; there are: {there}")
    _check(registry[name], name, params, error)
    return registry[name](**(params or {}))


def _check(
    part: type[T], name: str, params: Mapping[str, Any] | None, error: type[Exception]
) -> None:
    """Refuse parameters the class does not take."""
    valid = list(inspect.signature(part).parameters)
    unknown = sorted(set(params or {}) - set(valid))
    if unknown:
        takes = ", ".join(valid) or "none"
        raise error(f"{name}: unknown parameters {unknown}; there are: {takes}")
