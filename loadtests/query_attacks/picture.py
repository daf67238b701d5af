"""A picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loadtests.harness import Row


def draw(rows: Sequence[Row], file: Path) -> None:
    """Draw."""
