"""What workers found, as one."""

from __future__ import annotations

import copy
from typing import Any

from proxy.explorer.explorer import Explorer
from proxy.explorer.merging import merged
from tests.proxy.explorer.scores import DIGEST, NAMES, a_calibration, a_model, a_snapshot, drawn


def parts(candidate: dict[str, Any] | None, **fields: Any) -> list[dict[str, Any]]:
    """Two workers' answers, of different samples."""
    subject = Explorer({"m": (a_model(**fields), a_calibration())}, lambda _: DIGEST)
    found = []
    for worker, count in enumerate((4, 3)):
        scores = drawn(count, worker)
        scores[0, 2] = float("nan")
        ids = [f"w{worker}r{row}:0" for row in range(count)]
        found.append(subject.explore("m", candidate, a_snapshot(scores, id=ids), []))
    return found


def test_live_samples_are_those_of_all() -> None:
    one, other = parts(None)
    both = merged([one, other], None)
    assert both["live"]["ids"] == one["live"]["ids"] + other["live"]["ids"]
    assert both["live"]["fused"] == one["live"]["fused"] + other["live"]["fused"]
    assert (both["live"]["seen"], both["live"]["unknown"]) == (70, 2)
    assert {**both, "live": 0} == {**one, "live": 0}
    assert merged([one], None) == one


def test_only_the_samples_of_the_common_reservoir_stay() -> None:
    one, other = parts({"detectors": list(NAMES[:2])})
    both = merged([one, other], {"w0r2:0", "w1r1:0", "unheard of"})
    assert both["live"]["ids"] == ["w0r2:0", "w1r1:0"]
    at = one["live"]["ids"].index("w0r2:0"), other["live"]["ids"].index("w1r1:0")
    expected = [
        part["candidate"]["live"]["fused"][i] for part, i in zip((one, other), at, strict=True)
    ]
    assert both["candidate"]["live"]["fused"] == expected
    assert both["candidate"]["live"]["unknown"] == 0


def test_a_worker_that_has_not_reloaded_yet_is_left_out() -> None:
    one, other = parts({"fpr": 0.1})
    stale = copy.deepcopy(other)
    stale["current"]["fpr"] = 0.04
    assert merged([one, stale], None) == merged([one], None)
    stale = copy.deepcopy(other)
    stale["candidate"]["threshold"] = 4
    assert merged([one, stale], None) == merged([one], None)
