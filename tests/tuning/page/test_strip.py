"""Dots on lines."""

from __future__ import annotations

from tests.tuning.page.reader import read
from tuning.page.strip import strip

GROUPS = {"Square": {"purify<": [3, 1, 1, 250], "block": []}, "other": {}}


def test_every_count_is_a_dot_and_none_is_said() -> None:
    drawn = strip("asked", GROUPS, x="queries")
    read(drawn)
    assert drawn.count("var(--s0)") == 4
    assert "purify&lt;" in drawn
    for words in ("none", "Square", "other", "queries", "100"):
        assert f">{words}</text>" in drawn
    assert "#0000" not in drawn
    assert drawn == strip("asked", GROUPS, x="queries")


def test_nothing_at_all() -> None:
    read(strip("asked", {}, x="queries"))
