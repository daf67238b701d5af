"""Snapshots are read with suspicion."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from proxy.errors import ConfigError
from tests.tuning.recordings import NAMES, draw, snapshot
from tuning.live_scores import read


def test_replicas_are_merged_by_id() -> None:
    first = snapshot(draw(3, 1), label=["", "benign", "benign"])
    second = snapshot(draw(3, 1), label=["", "adversarial", ""])
    found = read([snapshot(draw(4, 2), prefix="z"), first, second], NAMES)
    assert found.ids.tolist() == [
        *(f"{i:06d}:0" for i in range(3)),
        *(f"z{i:06d}:0" for i in range(4)),
    ]
    assert found.labels.tolist() == ["", "adversarial", "benign", "", "", "", ""]
    assert np.allclose(found.scores[:3], draw(3, 1))
    assert len(read([snapshot(draw(0, 1))], NAMES)) == 0


def test_what_is_no_finite_score_is_missing() -> None:
    told = snapshot(draw(6, 1), verdict=["pass", "suspicious", "failed", None, [], "pass"])
    told["columns"]["scores"]["margin"][:4] = [None, float("nan"), float("inf"), 1e300]
    found = read([json.loads(json.dumps(told))], NAMES)
    assert np.isnan(found.scores[:, 1]).tolist() == [True] * 4 + [False] * 2
    assert found.failed.tolist() == [False, False, True, True, True, False]


def _set(column: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda told: told["columns"].update({column: value})


@pytest.mark.parametrize(
    ("ruin", "message"),
    [
        (lambda told: told.pop("columns"), "incomplete"),
        (lambda told: told.update(columns=[]), "incomplete"),
        (lambda told: told.pop("detectors"), "incomplete"),
        (lambda told: told.update(detectors=3), "incomplete"),
        (lambda told: told["columns"].pop("principal"), "incomplete"),
        (lambda told: told["columns"].pop("scores"), "incomplete"),
        (_set("scores", list(NAMES)), "incomplete"),
        (_set("scores", 7), "incomplete"),
        (lambda told: told.update(detectors=["energy"]), "of other detectors"),
        (lambda told: told["columns"]["scores"].pop("margin"), "of other detectors"),
        (lambda told: told["columns"]["scores"].update(other=[1.0] * 5), "of other detectors"),
        (lambda told: told["columns"]["scores"]["margin"].pop(), "columns of"),
        (lambda told: told["columns"]["chain"].pop(), "columns of"),
        (lambda told: told["columns"]["scores"].update(margin={}), "no list"),
        (lambda told: told["columns"]["scores"].update(margin=["1"] * 5), "margin is no number"),
        (lambda told: told["columns"]["scores"].update(margin=[True] * 5), "margin is no number"),
        (lambda told: told["columns"]["scores"].update(margin=[10**400] * 5), "margin is huge"),
        (_set("id", [1, 2, 3, 4, 5]), "`id` is to be"),
        (_set("principal", ["x" * 10_000] * 5), "`principal` is to be"),
        (_set("label", ["", "", "good", "", ""]), "unknown label"),
        (_set("chain", [0, 0, 0, 0, 0]), "`chain` is to be"),
    ],
)
def test_damaged_snapshots_are_refused(
    ruin: Callable[[dict[str, Any]], object], message: str
) -> None:
    told = snapshot(draw(5, 1))
    ruin(told)
    with pytest.raises(ConfigError, match=message):
        read([told], NAMES)
