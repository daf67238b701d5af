"""What has been worked out, kept in a folder: an interrupted run goes on where it stopped."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from proxy.files import write_whole

_ROOT = Path(__file__).resolve().parents[2]
_OURS = ("detectors", "loadtests", "proxy", "purifiers", "tuning")
"""Packages whose code results depend on; those of others are told by their version."""

Row = dict[str, str | int | float | bool | None]


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
        file = self._file(name, key, "safetensors")
        with contextlib.suppress(OSError, SafetensorError):  # what is damaged is made anew
            return dict(load_file(file))
        # Copies: a file must not hold one tensor under two names.
        made = {name: tensor.contiguous().clone() for name, tensor in make().items()}
        write_whole(file, save(made))
        return made

    def _file(self, name: str, key: str, ending: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self.folder / f"{name}-{digest}.{ending}"

    def row(self, name: str, key: str, make: Callable[[], Row]) -> Row:
        """The same for one flat row of a report."""
        return self.rows(name, key, lambda: [make()])[0]

    def rows(self, name: str, key: str, make: Callable[[], list[Row]]) -> list[Row]:
        """The same for several."""
        file = self._file(name, key, "json")
        with contextlib.suppress(OSError, ValueError):
            found: list[Row] = json.loads(file.read_text())
            return found
        made = make()
        write_whole(file, json.dumps(made).encode())
        return made


def code(*objects: object) -> str:
    """A digest of the code of the classes of objects, without comments and docstrings.

    With all modules of this project that theirs import, but not what packages gather in their
    `__init__`. Results of other code are not used again.
    """
    found: dict[Path, str] = {}
    waiting = [Path(inspect.getfile(kind)) for each in objects for kind in _classes(each)]
    while waiting:
        path = waiting.pop()
        if path in found or path.name == "__init__.py" or not _is_ours(path):
            continue
        tree = ast.parse(path.read_text())
        waiting += [file for file in _imported(tree) if file.exists()]
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value = ast.Constant(None)
        found[path] = ast.dump(tree)
    whole = "".join(found[path] for path in sorted(found))
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def digest(*parts: object) -> str:
    """A digest of numbers: tensors by their bytes, all else by its text."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            whole.update(f"{tuple(part.shape)} {part.dtype}".encode())
            whole.update(part.detach().cpu().contiguous().numpy().tobytes())
        else:
            whole.update(f"{part}\n".encode())
    return whole.hexdigest()[:16]


def _is_ours(path: Path) -> bool:
    return _ROOT in path.parents and path.relative_to(_ROOT).parts[0] in _OURS


def _classes(each: object) -> list[type]:
    kind = each if isinstance(each, type) else type(each)
    return [base for base in kind.__mro__ if base is not object]


def _imported(tree: ast.AST) -> list[Path]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    ours = [name for name in names if name.partition(".")[0] in _OURS]
    return [(_ROOT / name.replace(".", "/")).with_suffix(".py") for name in ours]
