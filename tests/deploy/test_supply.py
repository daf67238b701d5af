"""What the product is made of: locked, listed, licensed, built the same twice, without pickle."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.scripts import load

ROOT = Path(__file__).resolve().parents[2]
SUPPLY = ROOT / "deploy/supply"
PACKAGES = ("detectors", "proxy", "purifiers", "tuning", "loadtests", "deploy", "examples")
"""Tests write unsafe files on purpose."""

_PICKLES = {"cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve", "joblib"}
_PERMISSIVE = re.compile(r"apache|bsd|mit|isc|psf|python software", re.IGNORECASE)


inventory, wheel = load(SUPPLY / "inventory.py"), load(SUPPLY / "wheel.py")


@pytest.mark.parametrize("variant", inventory.LOCKS)
def test_every_locked_file_has_a_hash(variant: str) -> None:
    pins = inventory.pins(variant)
    assert len(pins) > 40
    assert [pin.name for pin in pins if not pin.sha256] == []


@pytest.mark.parametrize("variant", inventory.LOCKS)
def test_the_bill_of_materials_says_what_is_locked(variant: str) -> None:
    bill = json.loads((SUPPLY / f"sbom-{variant}.cdx.json").read_text())
    listed = {(c["name"], c["version"], c["hashes"][0]["content"]) for c in bill["components"]}
    assert listed == {(p.name, p.version, p.sha256[0]) for p in inventory.pins(variant)}, (
        "run make sbom"
    )
    assert bill["specVersion"] == "1.6"


def test_licences_are_permissive_but_for_cudas_libraries() -> None:
    text = (SUPPLY / "LICENCES.md").read_text()
    rows = dict(re.findall(r"^\| ([\w.-]+) \| ([^|]+) \|", text, re.MULTILINE))
    locked = {pin.name for variant in inventory.LOCKS for pin in inventory.pins(variant)}
    assert set(rows) - {"distribution"} == locked, "run make sbom"
    del rows["distribution"]
    odd = {name: text for name, text in rows.items() if not _PERMISSIVE.search(text)}
    assert {n for n in odd if not n.startswith(("nvidia-", "cuda-"))} == set(), odd


def test_the_wheel_is_the_same_whoever_builds_it(tmp_path: Path) -> None:
    first = wheel.build(ROOT, tmp_path / "a", epoch="1700000000")
    before = os.umask(0o077)
    try:
        second = wheel.build(ROOT, tmp_path / "elsewhere/b", epoch="1700000000")
    finally:
        os.umask(before)
    assert first.read_bytes() == second.read_bytes()


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def test_nothing_reads_or_writes_pickle() -> None:
    found = [f"{path}: {what}" for path in _sources() for what in _unsafe(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "torch.save(model, file)",
        "np.load(file, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
    ],
)
def test_what_is_unsafe_is_found(line: str) -> None:
    assert _unsafe(line)


def _unsafe(source: str) -> Iterator[str]:
    """What of a source file reads, or writes, a format that can carry code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] in _PICKLES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in _PICKLES:
                yield str(node.module)
        elif isinstance(node, ast.Call) and _is_unsafe(node):
            yield f"line {node.lineno}: {ast.unparse(node)[:80]}"


def _is_unsafe(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    given = {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name == "torch.load":
        return given.get("weights_only") != "True"
    if name == "torch.save":
        return "state_dict" not in ast.unparse(call.args[0])
    if name == "yaml.load":
        # PyYAML does not load without one; ruamel's object of this name makes plain values only.
        return given.get("Loader", "yaml.SafeLoader") != "yaml.SafeLoader"
    return name in ("eval", "exec", "yaml.unsafe_load") or given.get("allow_pickle") == "True"
