"""Plots: in the page's colours, named, and able to take what is missing."""

from __future__ import annotations

import numpy as np

from tests.tuning.page.reader import read
from tuning.page import plots
from tuning.page.rows import Row

SHARE: Row = {"share": 0.5, "low": 0.4, "high": 0.6, "samples": 50}


def test_bars_tell_their_figures() -> None:
    drawn = plots.bars("bars", {"a<b": {"x": SHARE, "y": SHARE}}, wanted=0.1, titled=str.upper)
    read(drawn)
    assert "<title>X, a&lt;b: 50.0% (40.0% to 60.0%), 50 samples</title>" in drawn
    assert "#0000a" not in drawn
    assert "var(--s0)" in drawn


def test_the_same_bars_are_drawn_alike() -> None:
    first, again = (plots.bars("bars", {"a": {"x": SHARE}}) for _ in range(2))
    assert first == again


def test_a_plot_of_nothing_is_still_one() -> None:
    assert plots.bars("bars", {}).startswith("<svg")
    assert plots.receiver("roc", {}, ()).startswith("<svg")
    assert plots.bounds("bounds", {}, defended="a", undefended="b").startswith("<svg")


def test_curves_may_begin_at_no_false_positives() -> None:
    curve = (np.array([0.0, 0.01, 1.0]), np.array([0.2, 0.8, 1.0]))
    drawn = plots.receiver("roc", {"fused": {"pgd": curve}}, ["fused"], str.upper)
    read(drawn)
    assert ">PGD</text>" in drawn


def test_bounds_have_a_panel_for_each_defence() -> None:
    rows: list[Row] = [
        {"eps_255": eps, "lost": 0.1 * eps, "alone": 1.0, "steps": steps}
        for eps in (1, 2, 4)
        for steps in (20, 100)
    ]
    shown = {"flag": rows, "purify": [{**row, "steps": None} for row in rows[::2]]}
    drawn = plots.bounds("bounds", shown, defended="lost", undefended="alone")
    read(drawn)
    assert ">flag</text>" in drawn
    assert ">4/255</text>" in drawn


def test_points_have_their_names() -> None:
    points = [plots.Point("residual", 0.5, 0.6, 0), plots.Point("jpeg view", 0.5, 0.61, 1)]
    drawn = plots.scatter("points", points, x="cost", y="benefit")
    assert ">residual</text>" in drawn
    assert ">jpeg view</text>" in drawn
