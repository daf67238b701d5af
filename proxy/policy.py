"""From scores to a verdict, from verdicts to an action. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from proxy.config import Model
from proxy.flow import Action, SampleVerdict, Verdict

_SEVERITY = (Action.NONE, Action.FLAG, Action.PURIFY, Action.DECOY, Action.BLOCK)


def judge(score: float, threshold: float) -> Verdict:
    """Pass only on proof: a NaN on either side is a failure, never clean (invariant 3)."""
    if score <= threshold:
        return Verdict.PASS
    if score > threshold:
        return Verdict.SUSPICIOUS
    return Verdict.FAILED


def decide(
    samples: Sequence[SampleVerdict],
    model: Model,
    *,
    in_sequence: bool,
    quarantined: bool = False,
    spared: Collection[int] = (),
) -> Action:
    """What to do with a request in enforce mode, given the verdicts on its samples.

    A request of a stateful sequence is never blocked: a missing frame would corrupt the state of
    all that follow, so it is flagged instead.

    Args:
        quarantined: earlier queries of the same principal raised an alarm.
        spared: indices of samples that are flagged at most for looking suspicious, since the
            traffic as a whole has changed; a request is acted on for the others.
    """
    wanted = [Action.NONE]
    suspicious = {i for i, each in enumerate(samples) if each.verdict is Verdict.SUSPICIOUS}
    if suspicious:
        wanted.append(Action.FLAG if suspicious <= set(spared) else Action(model.action))
    if quarantined or any(sample.alarm for sample in samples):
        wanted.append(Action(model.query_attacks.action))
    action = max(wanted, key=_SEVERITY.index)
    if action is Action.BLOCK and in_sequence:
        return Action.FLAG
    if action is Action.PURIFY and not targets(samples, action):
        return Action.FLAG  # a principal in quarantine, and nothing suspicious in this request
    return action


def targets(samples: Sequence[SampleVerdict], action: Action) -> tuple[int, ...]:
    """Indices of the samples an action purifies: a decoy all of them, so that none stands out."""
    return tuple(
        i
        for i, sample in enumerate(samples)
        if action is Action.DECOY or sample.verdict is Verdict.SUSPICIOUS or sample.alarm
    )


def failure(samples: Sequence[SampleVerdict]) -> str:
    """Why some sample got no verdict, so that `on_failure` must decide; empty if all got one."""
    failed = (each.reason or "error" for each in samples if each.verdict is Verdict.FAILED)
    return next(failed, "")
