"""What an evaluation found, in two sentences and the figures they rest on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.evaluate.sizes import THREATS
from tuning.evaluate.titles import titled
from tuning.page.rows import Row, number

CLEAN = "clean"
_ACTIONS = ("purify", "block")
_BARE = ("pass-through", "none")
"""Actions of rows of queries that are of the model alone."""
_FEWEST = 10
"""Successful images of an attack from which on its share caught says something."""


@dataclass(frozen=True)
class Findings:
    """Rows of a report by kind, in their order."""

    rows: Sequence[Row]
    wanted: float
    """The false-positive rate that was asked for; NaN where the report does not say."""

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Findings:
        """Those of a report; rows that are no rows are left out."""
        policy = report.get("policy")
        wanted = number(policy, "fpr") if isinstance(policy, Mapping) else math.nan
        rows = report.get("rows")
        return cls([row for row in rows or () if isinstance(row, dict)], wanted)

    def kind(self, *kinds: str) -> list[Row]:
        """The rows of some kinds."""
        return [row for row in self.rows if row.get("kind") in kinds]

    @property
    def attacks(self) -> list[Row]:
        """Attacks sent once, by whom they are known."""
        return [row for row in self.kind("attack", "transfer") if not row.get("skipped")]

    @property
    def clean(self) -> Row | None:
        """Benign images as they are."""
        return next((row for row in self.kind("benign") if row.get("name") == CLEAN), None)

    @property
    def weakest(self) -> Row | None:
        """The attack of which the smallest share is caught, of those that succeed often enough."""
        return min(self._telling, key=lambda row: number(row, "tpr"), default=None)

    @property
    def _telling(self) -> list[Row]:
        return [
            row
            for row in self.attacks
            if number(row, "samples") >= _FEWEST and not math.isnan(number(row, "tpr"))
        ]

    def rare(self) -> list[str]:
        """Threat models all of whose attacks succeed too rarely to say how many are caught."""
        known = {row.get("threat") for row in self._telling}
        met = {row.get("threat") for row in self.attacks}
        return [threat for threat in THREATS if threat in met - known]

    def caught(self) -> dict[str, tuple[float, int]]:
        """Threat model -> mean share caught over its attacks, and how many those are.

        What some part of the defence learned from is left out where there are others, and so are
        attacks that hardly ever succeed.
        """
        found = {}
        for threat in THREATS:
            some = [row for row in self._telling if row.get("threat") == threat]
            fair = [row for row in some if not row.get("tuned_on")] or some
            shares = [number(row, "tpr") for row in fair]
            if shares:
                found[threat] = (sum(shares) / len(shares), len(shares))
        return found

    def knowing(self) -> Row | None:
        """The worst an attacker who knows all does, under the largest bound."""
        known = [row for row in self.kind("adaptive") if not math.isnan(number(row, "strongest"))]
        return max(
            known, key=lambda row: (number(row, "eps_255"), number(row, "strongest")), default=None
        )

    def harm(self) -> list[str]:
        """Where the defended model did worse than the model alone, in words."""
        found = [
            f"an attacker who knows all, {row.get('branch')}, {row.get('eps_255')}/255 "
            f"({percent(number(row, 'strongest'))} instead of "
            f"{percent(number(row, 'undefended_strongest'))})"
            for row in self.kind("adaptive")
            if number(row, "strongest") > number(row, "undefended_strongest")
        ]
        for row in self.attacks:
            alone = number(row, "robust_none")
            for action in _ACTIONS:
                share = number(row, f"robust_{action}")
                if share < alone:
                    high, low = number(row, f"robust_{action}_high"), number(row, "robust_none_low")
                    chance = "; intervals overlap" if high >= low else ""
                    found.append(
                        f"{titled(str(row.get('name')))}, {row.get('threat')}, {action} (right "
                        f"answers {percent(share)} instead of {percent(alone)}{chance})"
                    )
        return found + self._asking()

    def _asking(self) -> list[str]:
        """Attackers who ask and succeed more often against the defended model."""
        rows = self.kind("query")
        bare = {row.get("name"): row for row in rows if row.get("action") in _BARE}
        found = []
        for row in rows:
            alone = bare.get(row.get("name"), {})
            most = number(alone, "success")
            if number(row, "success") > most:
                ends = number(row, "success_low"), number(alone, "success_high")
                chance = "; intervals overlap" if ends[0] <= ends[1] else ""
                found.append(
                    f"{titled(str(row.get('name')))} by queries, {row.get('action')} (succeeds for "
                    f"{percent(number(row, 'success'))} instead of {percent(most)}{chance})"
                )
        return found


_RARE = "Attacks fool the undefended model too rarely to say how many are caught."


def sentences(findings: Findings) -> tuple[str, str]:
    """What was found: false alarms first, then what is caught, missed and made worse."""
    return _alarms(findings), _defence(findings)


def _alarms(findings: Findings) -> str:
    wanted = findings.wanted
    aim = "" if math.isnan(wanted) else f", wanted at most {percent(wanted)}"
    clean = findings.clean
    if clean is None:
        return "How much of clean traffic is flagged was not measured."
    told = f"Of clean images {interval(clean, 'fpr')} are flagged{aim}"
    known = [row for row in findings.kind("benign", "unseen") if row is not clean]
    if known:
        worst = max(known, key=lambda row: number(row, "fpr"))
        novelty = ", a kind never calibrated on" if worst.get("kind") == "unseen" else ""
        told += (
            f"; of the other kinds of benign images {titled(str(worst.get('name')))} fares worst, "
            f"{interval(worst, 'fpr')}{novelty}"
        )
    return f"{told}."


def _defence(findings: Findings) -> str:
    caught = findings.caught()
    rare = findings.rare()
    if not caught:
        return _RARE if rare else "No attack was measured."
    means = ", ".join(
        f"{percent(share)} {threat} ({count} {'attack' if count == 1 else 'attacks'})"
        for threat, (share, count) in caught.items()
    )
    told = f"Of successful attacks it catches, on average, {means}"
    if rare:
        told += f" (too few {' and '.join(rare)} attacks succeed to say)"
    weakest = findings.weakest
    if weakest is not None:
        name = f"{titled(str(weakest.get('name')))} ({weakest.get('threat')})"
        told += f", least {name} at {interval(weakest, 'tpr')}"
    knowing = findings.knowing()
    if knowing is not None:
        told += (
            f"; one who knows all gets a wrong answer served for "
            f"{interval(knowing, 'strongest')} of images within {knowing.get('eps_255')}/255, of "
            f"the undefended model for {percent(number(knowing, 'undefended_strongest'))}"
        )
    harm = findings.harm()
    if harm:
        more = f" and {len(harm) - 1} more" if len(harm) > 1 else ""
        return f"{told}; it makes things worse for {harm[0]}{more}."
    return f"{told}; no attack measured succeeded more often than against no defence."


def interval(row: Row, figure: str) -> str:
    """A share with its interval, in words."""
    low, high = number(row, f"{figure}_low"), number(row, f"{figure}_high")
    share = percent(number(row, figure))
    return share if math.isnan(low) else f"{share} ({percent(low)} to {percent(high)})"


def percent(share: float) -> str:
    """A share in words."""
    return "an unknown share" if math.isnan(share) else f"{100 * share:.3g}\u00a0%"
