"""What a search leaves to choose from, which of it to take, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuning.search.optimise import Limits, Trial
from tuning.search.outcome import Outcome

ALL = "all attacks"
"""The name of the threat model that is every recorded attack together."""
_LEAST_MS = 0.05
"""Differences of latency below this are none: clocks and schedulers make as much."""


@dataclass(frozen=True, slots=True)
class Threat:
    """One threat model, and the attacks of it that the search looks at."""

    name: str
    attacks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What to take against one threat model."""

    threat: Threat
    front: tuple[Trial, ...]
    """Within the limits, none both cheaper and better than another; cheapest first."""
    taken: Trial
    cheaper: Trial | None
    """The next on the front that costs less."""
    stronger: Trial | None
    """The next that lets fewer attacks through, within the limits or not."""

    def why(self) -> str:
        """Two sentences: what it buys and what it costs, against its neighbours."""
        return f"{self._buys()} {self._neighbours()}"

    def _buys(self) -> str:
        outcome, predicted = self.taken.outcome, self.taken.predicted
        wrong, missed = _shares(outcome, self.threat.attacks)
        against = (
            f"Of attacks that fool the bare model it leaves {wrong:.0%} a wrong answer, "
            f"{missed:.0%} unnoticed"
            if self.threat.attacks
            else "No attacks were recorded, so what it stops is not known"
        )
        return (
            f"{against}, for {predicted.added_p99_ms:+.2f} ms of p99, {predicted.copies:.2f} more "
            f"samples for the model to answer, {outcome.fpr:.2%} false alarms in the worst benign "
            f"group ({outcome.worst_group}) and {outcome.loss:+.2%} of clean accuracy lost."
        )

    def _neighbours(self) -> str:
        told = []
        if self.cheaper is not None:
            told.append(f"{_than(self, self.cheaper)} than the next cheaper, {_name(self.cheaper)}")
        else:
            told.append("nothing on the front costs less")
        if self.stronger is not None:
            harm = self.stronger.outcome.harm(self.threat.attacks)
            own = self.taken.outcome.harm(self.threat.attacks)
            more = self.stronger.predicted.added_p99_ms - self.taken.predicted.added_p99_ms
            told.append(
                f"the next stronger, {_name(self.stronger)}, would bring harm from {own:.3f} to "
                f"{harm:.3f} for {more:+.2f} ms of p99 and "
                f"{self.stronger.outcome.fpr - self.taken.outcome.fpr:+.2%} false alarms"
            )
        else:
            told.append("nothing that was tried is stronger")
        text = "; ".join(told)
        return text[0].upper() + text[1:] + "."


def front(trials: Sequence[Trial], limits: Limits, attacks: Sequence[str]) -> list[Trial]:
    """The trials within the limits of which none is cheaper and better, cheapest first."""
    kept = [trial for trial in trials if trial.keeps(limits)]
    kept.sort(key=lambda t: (t.predicted.added_p99_ms, t.outcome.harm(attacks), t.outcome.fpr))
    found: list[Trial] = []
    for trial in kept:
        harm = trial.outcome.harm(attacks)
        if not found or harm < found[-1].outcome.harm(attacks):
            found.append(trial)
    return found


def choose(
    trials: Sequence[Trial], limits: Limits, threat: Threat, *, may_block: bool
) -> Choice | None:
    """The policy to take against a threat model; None where nothing is within the limits.

    The one-standard-error rule: of all whose harm cannot be told from the least, the cheapest.

    Args:
        may_block: whether a policy that refuses requests may be taken. To refuse is to tell an
            attacker what is suspicious.

    Source: Breiman, Friedman, Olshen, Stone 1984, section 3.4.3.
    """
    attacks = threat.attacks
    allowed = [t for t in trials if may_block or t.candidate.action != "block"]
    fitting = front(allowed, limits, attacks)
    if not fitting:
        return None
    best = min(fitting, key=lambda trial: trial.outcome.harm(attacks))
    most = best.outcome.harm(attacks) + standard_error(best.outcome, attacks)
    taken = next(trial for trial in fitting if trial.outcome.harm(attacks) <= most)
    own = taken.outcome.harm(attacks)
    at = fitting.index(taken)
    beyond = [
        t
        for t in allowed
        if t.outcome.harm(attacks) < own and t.predicted.added_p99_ms > taken.predicted.added_p99_ms
    ]
    return Choice(
        threat,
        tuple(front(trials, limits, attacks)),
        taken,
        fitting[at - 1] if at else None,
        min(beyond, key=lambda t: t.predicted.added_p99_ms, default=None),
    )


def standard_error(outcome: Outcome, attacks: Sequence[str]) -> float:
    """Of the mean harm over some attacks; each sample's harm is between 0 and 1."""
    known = [outcome.attacks[name] for name in attacks if name in outcome.attacks]
    if not known:
        return 0.0
    # At 0 and 1 the plain estimate would be 0 (Agresti and Coull 1998: two more of each).
    variances = []
    for each in known:
        total = each.wrong.total + 4
        share = (each.harm * each.wrong.total + 2) / total
        variances.append(share * (1 - share) / total)
    return math.sqrt(sum(variances)) / len(known)


def binding(trials: Sequence[Trial], limits: Limits) -> str:
    """Why no trial is within the limits, and what comes nearest."""
    kept: dict[str, int] = {}
    for trial in trials:
        for name, over in limits.violations(trial.outcome, trial.predicted).items():
            kept[name] = kept.get(name, 0) + (over <= 0)
    hardest = min(kept, key=kept.__getitem__)
    near = sorted(trials, key=lambda trial: _excess(trial, limits))[:3]
    told = "\n".join(
        f"  {_name(t)}: {t.predicted.added_p99_ms:+.2f} ms of p99, {t.outcome.fpr:.2%} false "
        f"alarms ({t.outcome.worst_group}), {t.outcome.loss:+.2%} accuracy"
        for t in near
    )
    counts = ", ".join(f"{count} keep the {name}" for name, count in kept.items())
    return (
        f"no policy keeps all limits: of {len(trials)} candidates {counts}; {hardest} binds. "
        f"Nearest:\n{told}"
    )


def _excess(trial: Trial, limits: Limits) -> float:
    over = limits.violations(trial.outcome, trial.predicted).values()
    return sum(max(value, 0.0) for value in over)


def _shares(outcome: Outcome, attacks: Sequence[str]) -> tuple[float, float]:
    known = [outcome.attacks[name] for name in attacks if name in outcome.attacks]
    count = max(len(known), 1)
    wrong = sum(each.wrong.share for each in known) / count
    return wrong, sum(each.missed.share for each in known) / count


def _than(choice: Choice, other: Trial) -> str:
    attacks = choice.threat.attacks
    ms = choice.taken.predicted.added_p99_ms - other.predicted.added_p99_ms
    harm = other.outcome.harm(attacks) - choice.taken.outcome.harm(attacks)
    cost = "as fast" if abs(ms) < _LEAST_MS else f"{ms:.2f} ms dearer at p99"
    return f"{cost} and {harm:.3f} less harm"


def _name(trial: Trial) -> str:
    return f"'{trial.candidate.name}'"
