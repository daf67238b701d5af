"""Horizontal bars."""

from __future__ import annotations

import pytest

from tests.tuning.page.reader import read
from tuning.page.ladder import Line, Sign, ladder
from tuning.page.rows import Row

ROW: Row = {"tpr": 0.5, "tpr_low": 0.4, "tpr_high": 0.6, "samples": 50, "tpr_at_5": 0.7}


def test_each_line_has_its_name_and_its_figures() -> None:
    groups = {"a<b": [Line("PGD", ROW), Line("CW", ROW, is_hatched=True)], "other": []}
    drawn = ladder("caught", groups, "tpr", signs=(Sign("tpr_at_5", "D"),), wanted=0.01)
    read(drawn)
    assert "<title>a&lt;b, PGD: 50 % (40 % to 60 %), 50 samples</title>" in drawn
    assert drawn.count("<title>") == 2
    assert ">other</text>" in drawn
    assert "#0000" not in drawn
    assert drawn == ladder("caught", groups, "tpr", signs=(Sign("tpr_at_5", "D"),), wanted=0.01)


def test_units_other_than_shares() -> None:
    drawn = ladder("ms", {"g": [Line("flag", {"p50": 1.25, "p99": 40})]}, "p50", unit="ms")
    assert "<title>g, flag: 1.25 ms</title>" in drawn


def test_signs_fit_in() -> None:
    far = ladder("ms", {"g": [Line("a", {"p50": 1.0, "p99": 40})]}, "p50", signs=[Sign("p99", "D")])
    assert ">4e+03 %<" in far or ">4000 %<" in far


@pytest.mark.parametrize("value", [None, "text", float("nan")])
def test_what_is_not_known_is_said(value: object) -> None:
    row: Row = {"tpr": value}  # type: ignore[dict-item]
    assert "<title>g, PGD: not known</title>" in ladder("t", {"g": [Line("PGD", row)]}, "tpr")


def test_nothing_at_all() -> None:
    assert ladder("t", {}, "tpr").startswith("<svg")
