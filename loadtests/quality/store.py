"""What a study has worked out, kept in a folder: an interrupted run goes on where it stopped."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from loadtests.harness import CHECKOUT, Row


class Store:
    """Tensors by name, under a folder.

    Args:
        folder: made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def tensors(
        self, name: str, key: str, make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What `make` returns, from the file if this was made before.

        Args:
            name: of the file, readable.
            key: of everything the result depends on; another key makes it anew.
        """
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        file = self.folder / f"{name}-{digest}.safetensors"
        if not file.exists():
            made = {key: tensor.contiguous() for key, tensor in make().items()}
            part = file.with_suffix(f".{os.getpid()}.part")
            save_file(made, part)
            part.replace(file)
        return dict(load_file(file))

    def row(self, name: str, key: str, make: Callable[[], Row]) -> Row:
        """The same for one flat row of a report."""
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        file = self.folder / f"{name}-{digest}.json"
        if not file.exists():
            file.write_text(json.dumps(make()))
        row: Row = json.loads(file.read_text())
        return row


def code(*objects: object) -> str:
    """A digest of the code of the classes of objects, without comments and docstrings.

    With all modules of this project that theirs import, but not what packages gather in their
    `__init__`. Results of other code are not used again.
    """
    found: dict[Path, str] = {}
    waiting = [Path(inspect.getfile(kind)) for each in objects for kind in _classes(each)]
    while waiting:
        path = waiting.pop()
        if path in found or path.name == "__init__.py" or CHECKOUT not in path.parents:
            continue
        tree = ast.parse(path.read_text())
        waiting += [file for file in _imported(tree) if file.exists()]
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value = ast.Constant(None)
        found[path] = ast.dump(tree)
    whole = "".join(found[path] for path in sorted(found))
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def _classes(each: object) -> list[type]:
    kind = each if isinstance(each, type) else type(each)
    return [base for base in kind.__mro__ if base is not object]


def _imported(tree: ast.AST) -> list[Path]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [(CHECKOUT / name.replace(".", "/")).with_suffix(".py") for name in names]
