"""The configuration file: YAML to `Config`, with errors that name file, line, column and key.

Knows nothing of what the settings do; watching the file for changes is `proxy.watcher`.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from proxy.config import Config
from proxy.errors import ConfigError

MAX_ERRORS = 20  # a page; the rest mostly follow from these

MAX_NODES = 100_000
"""Values in a file, each as often as aliases repeat it: a few lines can stand for billions."""

_Loc = tuple[int | str, ...]


class _Loader(yaml.SafeLoader):
    """Safe YAML whose mapping keys are strings as written: a model may be called `1` or `on`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


def load(path: Path) -> Config:
    """Read and validate a configuration file; relative paths in it start at its folder.

    Raises:
        ConfigError: one line per error: `file:line:column: key.path: what is wrong`.
    """
    return parse(path, read(path))


def read(path: Path) -> str:
    """The text of a configuration file.

    Raises:
        ConfigError: it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_bytes().decode()  # line ends as they are: the digest is of the file
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def parse(path: Path, text: str) -> Config:
    """Validate a text as if it were the file's.

    Raises:
        ConfigError: as `load` does.
    """
    try:
        node, data = _parse(path, text)
        anchored: Config = _anchored(Config.model_validate(data), path.absolute().parent)
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply") from error
    except ValidationError as error:
        found = sorted(_explain(node, e["type"], e["loc"], e) for e in error.errors())
        lines = [f"{path}:{line}:{column}: {text}" for line, column, text in found]
        hidden = len(lines) - MAX_ERRORS
        more = [f"... and {hidden} more"] if hidden > 0 else []
        raise ConfigError("\n".join(lines[:MAX_ERRORS] + more)) from error
    return anchored


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors and for `deploy/config.schema.json`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "Breakwater configuration",
    }


def _parse(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if _size(node) > MAX_NODES:
                raise ConfigError(f"{path}: its aliases stand for more than {MAX_NODES:,} values")
            for key, first in _duplicates(node):
                raise ConfigError(
                    f"{_at(path, key.start_mark)}: {key.value}: key given twice "
                    f"(first on line {first.start_mark.line + 1})"
                )
            data = {} if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{_at(path, mark)}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{_at(path, node.start_mark if node else None)}: not a mapping of keys")
    return node, data


def _size(root: yaml.Node | None) -> int:
    """Values below a node, itself included; where a node contains itself, that counts once."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = 0
            below = node.value if isinstance(node, yaml.SequenceNode) else chain(*node.value)
            sizes[id(node)] = 1 + sum(map(size, below))
        return sizes[id(node)]

    return 0 if root is None else size(root)


def _duplicates(root: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.ScalarNode]]:
    """Yield each repeated key with its first occurrence; refuse keys that are not plain text."""
    todo, done = [root] if root else [], set[int]()
    while todo:
        node = todo.pop()
        if id(node) in done:  # an alias: seen under its anchor
            continue
        done.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        elif isinstance(node, yaml.MappingNode):
            first: dict[str, yaml.ScalarNode] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(None, None, "a key must be text", key.start_mark)
                if first.setdefault(key.value, key) is not key:
                    yield key, first[key.value]
                todo.append(value)


def _explain(
    root: yaml.Node | None, kind: str, loc: _Loc, error: Mapping[str, Any]
) -> tuple[int, int, str]:
    """Turn one pydantic error into line, column and a text a person can act on."""
    mark = _mark(root, loc, at_key=kind in ("extra_forbidden", "value_error"))
    dotted = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")
    text = str(error["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        text = "unknown key" + _suggest(str(loc[-1]), _keys_at(loc[:-1]))
    elif kind == "missing":
        text = "this key is required"
    elif kind != "value_error":
        got = repr(error["input"])
        got = got if len(got) <= 60 else got[:57] + "..."
        choices = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
        hint = _suggest(str(error["input"]), choices)
        text = f"{text[:1].lower()}{text[1:]} (got {got}){hint}"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return line, column, f"{dotted}: {text}" if dotted else text


def _suggest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _at(path: Path, mark: yaml.Mark | None) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)


def _mark(root: yaml.Node | None, loc: _Loc, *, at_key: bool) -> yaml.Mark | None:
    """Find the place in the file that a pydantic location speaks of, or the nearest above it."""
    node, mark = root, root.start_mark if root else None
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            # The last match: keys merged with `<<` were put in front of the mapping's own.
            pairs = [pair for pair in node.value if pair[0].value == part]
            if not pairs:
                break
            key, node = pairs[-1]
            mark = key.start_mark if at_key else node.start_mark
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            mark = node.start_mark
    return mark


def _keys_at(loc: _Loc) -> list[str]:
    """Return the keys allowed at a location, by walking the models' annotations."""
    kind: Any = Config
    for part in loc:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        else:
            kind = kind.model_fields[part].annotation
        while get_origin(kind) in (Union, types.UnionType):
            kind = next(a for a in get_args(kind) if a is not type(None))
    return list(kind.model_fields)


def _anchored(value: Any, folder: Path) -> Any:
    """Return a copy with every relative path made absolute."""
    if isinstance(value, BaseModel):
        fields = {name: _anchored(getattr(value, name), folder) for name in value.model_fields_set}
        return value.model_copy(update=fields)
    if isinstance(value, dict):
        return {key: _anchored(item, folder) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_anchored(item, folder) for item in value)
    return folder / value if isinstance(value, Path) else value
