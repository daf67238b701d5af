"""SECURITY.md claims nothing without a test, and each test it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))
CLAIMS = [
    line
    for part in re.split(r"^\| claim \| test \|\n\|---\|---\|\n", TEXT, flags=re.MULTILINE)[1:]
    for line in part.split("\n\n")[0].splitlines()
]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    tests = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in tests if name else any(each.startswith("test_") for each in tests)


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_names_its_test(claim: str) -> None:
    assert re.search(r"\| `tests/[\w/]+\.py", claim), claim


def test_there_are_claims() -> None:
    assert len(CLAIMS) > 30
