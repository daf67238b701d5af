"""The rules file and its unit tests as data, and promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES = FOLDER / "rules" / "breakwater.rules.yaml"
TESTS = sorted((FOLDER / "tests").glob("*.test.yaml"))
TARGET_LABELS = {"namespace", "pod", "instance", "job"}
"""What Prometheus gives every series of a target."""

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="needs promtool (Debian: apt install --no-install-recommends prometheus)",
)

_METRIC = re.compile(r"(?<![\w:])(breakwater_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_BY = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def groups() -> list[dict[str, Any]]:
    """The groups of the rules file."""
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return found


def rules() -> list[dict[str, Any]]:
    """All rules."""
    return [rule for group in groups() for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerting rules by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def cases() -> list[dict[str, Any]]:
    """The unit tests of all files."""
    return [case for path in TESTS for case in yaml.safe_load(path.read_text())["tests"]]


def selected(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The metrics of ours that an expression selects, with their matchers."""
    for name, matchers in _METRIC.findall(expression):
        yield name, _MATCHER.findall(matchers)


def grouped_by(expression: str) -> set[str]:
    """The labels that an expression groups and joins by."""
    return {label.strip() for found in _BY.findall(expression) for label in found.split(",")}


def promtool(*arguments: str | Path, folder: Path = FOLDER) -> tuple[int, str]:
    """Exit status and what it says."""
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout + done.stderr
