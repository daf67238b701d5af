"""Judgements that take less time than the way to the device thread and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from detectors import DETECTORS
from detectors.answers import ROW_ERROR
from detectors.base import Detector, Need
from detectors.fusion import Bounds
from proxy.cascade import Stage, Stand, stage_of
from proxy.case import Case

MOST_VALUES = 8192
"""Read in a judgement: a bound on how long the event loop can be held, chosen and not measured. It
admits a few samples of a thousand classes."""

MOST_IN_ROW = 256
"""Values of an answer that are read one by one: margin and energy then take half as long as by
tensors after a pause; for a thousand they would take twice as long (`loadtests/NOTES.md`)."""


def is_light(part: Detector) -> bool:
    """Whether a detector does a little arithmetic on answers, and nothing else.

    Of the project's own that is known. A plug-in may do anything, and only on the device thread
    does it not hold up everybody else.
    """
    if part.needs is Need.INPUT or type(part) is not DETECTORS.get(part.name):
        return False
    return stage_of(part) is not Stage.NETWORK


def is_quick(case: Case, light: Collection[str]) -> bool:
    """Whether all that is left to do about a case is a little arithmetic.

    Args:
        light: names of the detectors that do no more than that.
    """
    stand = case.glance.stand
    if stand is None or case.output is None or case.more:
        return False  # nothing to judge by, or copies may have to be made
    values = case.output.size + sum(view.size for view in case.views.values())
    if case.chain is not None:  # the history's score is NaN where a pixel is, so it reads them
        values += case.glance.x.numel()
    if values > MOST_VALUES:
        return False
    return all(name in light or name in stand.scores for name in stand.rule.names)


def row_scores(
    case: Case,
    stand: Stand,
    light: Mapping[str, Detector],
    note: Callable[[str, float], None],
) -> dict[str, Bounds] | None:
    """Bounds on all scores of a lone sample's last level, without an operation on tensors.

    A model's answer comes milliseconds after the last use of torch, which by then is out of the
    processor's caches: the operations of one judgement then take three times as long.

    Args:
        stand: where the case's judgement goes on.
        light: name -> detector, of those that do a little arithmetic only.
        note: told each detector's name and seconds, once all have scored.

    Returns:
        None where tensors are needed: several samples, earlier levels, other evidence.
    """
    if case.output is None or case.chain is not None or len(stand.reached) != 1:
        return None
    if case.output.size > MOST_IN_ROW:
        return None
    if not stand.rows or stand.level != len(stand.rule.levels) - 1:
        return None
    row: list[float] = case.output[0].tolist()
    found: dict[str, Bounds] = {}
    took: dict[str, float] = {}
    for name in stand.rule.levels[-1]:
        if (score := case.glance.known.get(name)) is not None:
            found[name] = (score, score)
            continue
        started = time.perf_counter()
        score = light[name].score_row(row) if name in light else None
        if score is None:
            return None
        took[name] = time.perf_counter() - started
        error = ROW_ERROR * (1 + abs(score))
        found[name] = (score - error, score + error)
    for name, seconds in took.items():
        note(name, seconds)
    return found
