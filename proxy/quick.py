"""Judgements that take less time than the way to the device thread and back."""

from __future__ import annotations

from collections.abc import Collection

from detectors import DETECTORS
from detectors.base import Detector, Need
from proxy.cascade import Stage, stage_of
from proxy.case import Case

MOST_VALUES = 8192
"""Read in a judgement: a bound on how long the event loop can be held, chosen and not measured. It
admits a few samples of a thousand classes."""


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
