"""Settings changed in the text of a configuration file: every other byte stays as it is.

The text is cut at the places the parser reports, with the parser that reads the file: a round trip
through a document in memory would move comments and blank lines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from proxy.control.errors import ImpossibleError, InvalidAskError

MAX_SETTINGS = 64

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_COLON = re.compile(r"\s*:")


def value_of(key: str, text: str) -> Any:
    """The value that a text stands for in the file.

    Raises:
        InvalidAskError: it is no YAML value.
    """
    try:
        return yaml.load(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidAskError(f"{key}: the value is not valid YAML") from error


def edited(text: str, model: str, settings: Mapping[str, Any]) -> str:
    """The text with settings of one model changed.

    Args:
        text: a valid configuration that has the model.
        model: its name.
        settings: field to value; `query_attacks.action` for nested ones, `detectors.0.name` in
            lists. What the file does not say yet is added at the top of the model's settings.

    Raises:
        InvalidAskError: a field's name or its value cannot be written.
        ImpossibleError: the setting is shared with others, so that its text is in another place.
    """
    if not 0 < len(settings) <= MAX_SETTINGS:
        raise InvalidAskError(f"give 1 to {MAX_SETTINGS} settings, as field and value")
    for key, value in settings.items():
        parts = key.split(".")
        if not all(_KEY.fullmatch(part) for part in parts):
            raise InvalidAskError(f"{key!r} is no setting: letters, digits, _ and dots between")
        text = _set(text, ("models", model, *parts), value)
    return text


def _set(text: str, path: Sequence[str], value: Any) -> str:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    key: yaml.Node | None = None
    for depth, part in enumerate(path):
        found = _child(node, part)
        if found is None:
            return _add(text, key, node, path[depth:], value)
        key, node = found
        if key is not None and node.start_mark.index < key.end_mark.index:
            raise ImpossibleError(
                f"{'.'.join(path[: depth + 1])} repeats another part of the file (*alias): edit "
                "the file itself"
            )
    return _replace(text, key, node, _flow(value))


def _child(node: Any, part: str) -> tuple[yaml.Node | None, yaml.Node] | None:
    """The key and value of a part of the path; None where the file does not say it."""
    if isinstance(node, yaml.SequenceNode):
        if not part.isdigit() or int(part) >= len(node.value):
            raise InvalidAskError(f"there is no entry {part}: the list has {len(node.value)}")
        return None, node.value[int(part)]
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in reversed(pairs) if pair[0].value == part), None)


def _replace(text: str, key: yaml.Node | None, node: yaml.Node, value: str) -> str:
    start, end = node.start_mark.index, _end(text, node)
    between = "" if key is None else text[key.end_mark.index : start]
    if "\n" not in between:
        gap = "" if text[start - 1] in " [,{" else " "
        return f"{text[:start]}{gap}{value}{text[end:]}"
    # It begins on a line of its own: on that of its key there is never too little indentation.
    assert key is not None  # noqa: S101 (there is something between)
    colon = _after_colon(text, key)
    kept = text[colon:start].rstrip()  # a comment
    return f"{text[:colon]} {value}{kept}{text[end:]}"


def _add(text: str, key: yaml.Node | None, node: Any, path: Sequence[str], value: Any) -> str:
    """The text with what the path names added to a node that lacks it."""
    for part in reversed(path[1:]):
        value = {part: value}
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
        return _replace(text, key, node, _flow({path[0]: value}))
    if not isinstance(node, yaml.MappingNode):
        raise InvalidAskError(f"{path[0]}: there is no such setting here, only a value")
    if len(path) > 1 and any(k.value == "<<" for k, _ in node.value):
        raise ImpossibleError(
            f"{path[0]} may come from another part of the file (<<): edit the file itself"
        )
    line = f"{path[0]}: {_flow(value)}"
    if not node.value:
        return _replace(text, key, node, f"{{{line}}}")
    first = node.value[0][0].start_mark
    gap = ", " if node.flow_style else "\n" + " " * first.column
    return f"{text[: first.index]}{line}{gap}{text[first.index :]}"


def _after_colon(text: str, key: yaml.Node) -> int:
    found = _COLON.match(text, key.end_mark.index)
    if found is None:
        raise ImpossibleError(f"{key.value} is written as `? key`: edit the file itself")
    return found.end()


def _end(text: str, node: yaml.Node) -> int:
    """Where the text of a node ends; the parser counts the comments behind a block as its own."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        below = last[1] if isinstance(last, tuple) else last
        if below.start_mark.index >= node.start_mark.index:
            return _end(text, below)
        raise ImpossibleError("the setting ends in an *alias: edit the file itself")
    start, end = node.start_mark.index, node.end_mark.index
    return start + len(text[start:end].rstrip())


def _flow(value: Any) -> str:
    """A value on one line, as both versions of YAML read it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_string(str(k))}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_flow, value)) + "]"
    raise InvalidAskError(f"a setting cannot be a {type(value).__name__}")


def _number(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")  # without the dot it is a string


def _string(value: str) -> str:
    if _PLAIN.fullmatch(value) and isinstance(yaml.load(value, Loader=yaml.SafeLoader), str):
        return value
    inside = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
    return f'"{inside}"'
