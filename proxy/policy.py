"""From scores to a verdict, from verdicts to an action. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.config import Model
from proxy.flow import Action, SampleVerdict, Verdict


def judge(score: float, threshold: float) -> Verdict:
    """Pass only on proof: a NaN on either side is a failure, never clean (invariant 3)."""
    if score <= threshold:
        return Verdict.PASS
    if score > threshold:
        return Verdict.SUSPICIOUS
    return Verdict.FAILED


def decide(samples: Sequence[SampleVerdict], model: Model, *, in_sequence: bool) -> Action:
    """What to do with a request in enforce mode, given the verdicts on its samples.

    A request of a stateful sequence is never blocked: a missing frame would corrupt the state of
    all that follow, so it is flagged instead.
    """
    if not any(sample.verdict is Verdict.SUSPICIOUS for sample in samples):
        return Action.NONE
    action = Action(model.action)
    if action is Action.BLOCK and in_sequence:
        return Action.FLAG
    return action


def has_failed(samples: Sequence[SampleVerdict]) -> bool:
    """Whether some sample got no verdict, so that `on_failure` must decide."""
    return any(sample.verdict is Verdict.FAILED for sample in samples)
