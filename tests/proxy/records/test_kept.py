"""Rows to columns."""

from __future__ import annotations

import numpy as np

from proxy.flow import Action, Verdict
from proxy.records.kept import ACTION_CODE, FACTS, VERDICT_CODE, Kept
from tests.proxy.records.flows import SUBJECT


def test_every_verdict_and_action_has_a_code() -> None:
    assert set(VERDICT_CODE) == {str(each) for each in Verdict}
    assert set(ACTION_CODE) == {str(each) for each in Action}


def test_nothing_kept_is_empty_columns() -> None:
    rows = np.zeros(0, np.dtype([*FACTS, ("scores", "f8", (2,))]))
    found = Kept(SUBJECT, 1.0, 0, 10, rows, {}).snapshot()
    assert (found.kept, found.partial, found.seen) == (0, 0, 0)
    assert found.scores == {"residual": [], "margin": []}
    assert found.defence == SUBJECT.defence
