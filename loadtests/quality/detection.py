"""How much of each attack is flagged, and how much that is benign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.binomial import lower_bound, upper_bound
from detectors.calibration import Calibration
from detectors.rule import Cascade, Rule
from detectors.secrecy import Secrecy
from loadtests.harness import Report, Row
from loadtests.quality.evidence import Scores, Witness
from loadtests.quality.networks import GRADIENT, UNSEEN
from tuning.evaluate.attacks import ATTACKS
from tuning.evaluate.figures import auroc

Part = tuple[str, str, dict[str, object]]
"""Label, detector and its parameters."""

RATES = (0.01, 0.05)
ELEVEN = (
    *("fgsm8", "pgd2", "pgd4", "pgd8", "pgd100_8", "deepfool", "cw", "cw_k20", "square8"),
    *("hsj", "patch8"),
)
"""The attacks that means are taken over: without the smooth ones, and APGD, which is like PGD."""


@dataclass(frozen=True)
class Tier:
    """A set of detectors."""

    name: str
    parts: tuple[str, ...]
    queries: int
    """Extra calls to the model a sample costs."""


class Detection:
    """Calibrated rules over the detectors of a study.

    Args:
        witness: where scores come from.
        parts: every detector used, by label.
    """

    def __init__(
        self, witness: Witness, parts: Mapping[str, tuple[str, dict[str, object]]]
    ) -> None:
        self.images = witness.images
        self.parts = parts
        self._witness = witness
        self._calibrations: dict[str, Calibration] = {}
        self._scores: dict[tuple[str, str], Scores] = {}
        self._rules: dict[tuple[str, str, float], Rule] = {}

    def scores(self, label: str, variant: str) -> Scores:
        """One detector's scores of every set; `variant` is that of its networks."""
        if (label, variant) not in self._scores:
            name, params = self.parts[label]
            self._scores[label, variant] = self._witness.scores(name, params, variant)
        return self._scores[label, variant]

    def calibration(self, variant: str) -> Calibration:
        """All detectors, calibrated on the held benign images."""
        if variant not in self._calibrations:
            groups = {
                group: {label: self.scores(label, variant)[f"held/{group}"] for label in self.parts}
                for group in self.images.held
            }
            self._calibrations[variant] = Calibration.fit(groups)
        return self._calibrations[variant]

    def rule(self, tier: Tier, variant: str, fpr: float) -> Rule:
        """The rule of a tier at a rate of the worst benign group."""
        key = (tier.name, variant, fpr)
        if key not in self._rules:
            self._rules[key] = self.calibration(variant).rule([tier.parts], fpr)
        return self._rules[key]

    def fused(self, rule: Rule, variant: str, key: str) -> Tensor:
        """Fused scores of one set, (N,)."""
        return rule.score({label: self.scores(label, variant)[key] for label in rule.names})

    def mix_threshold(self, rule: Rule, variant: str, fpr: float) -> float:
        """The score that this share of all held benign images, groups together, exceeds."""
        fused = [self.fused(rule, variant, f"held/{group}") for group in self.images.held]
        return float(torch.quantile(torch.cat(fused), 1 - fpr))

    def cascaded(self, tiers: Sequence[Tier], fpr: float, stops: Sequence[Cascade]) -> Rule:
        """The rule of the last tier, with when a sample stops at each tier before it."""
        return self.calibration(GRADIENT).rule([tier.parts for tier in tiers], fpr, cascade=stops)

    def secret(self, tier: Tier, fpr: float, secrecy: Secrecy) -> Rule:
        """The rule of a tier with weights drawn from a secret."""
        return self.calibration(GRADIENT).rule([tier.parts], fpr, secrecy=secrecy)


def share(over: Tensor) -> Row:
    """The share that is true, with its 95 % Clopper-Pearson interval."""
    count, total = int(over.sum()), max(1, len(over))
    return {
        "share": round(count / total, 4),
        "low": round(lower_bound(count, total, 0.975), 4),
        "high": round(upper_bound(count, total, 0.975), 4),
        "samples": len(over),
    }


def variant_of(attack: str) -> str:
    """The variant of the networks that was trained on nothing like this attack."""
    return UNSEEN[ATTACKS[attack].family]


def report_attacks(detection: Detection, tiers: Sequence[Tier], report: Report) -> None:
    """One row for each tier, attack and operating point, networks not having seen its kind.

    And one more at the rate of the mix by networks that know gradient attacks, for comparison with
    figures measured so.
    """
    for tier in tiers:
        for attack in detection.images.attacked:
            key = f"attack/{attack}"
            for point, variant, rule, value in (
                *points(detection, tier, variant_of(attack)),
                points(detection, tier, GRADIENT, " (PGD seen)")[-1],
            ):
                fused = detection.fused(rule, variant, key)
                benign = detection.fused(rule, variant, "fresh/clean")
                report.add(
                    tier=tier.name,
                    attack=attack,
                    point=point,
                    **share(fused > value),
                    auroc=round(auroc(benign, fused), 4),
                )


Point = tuple[str, str, Rule, float]
"""Name, variant of the networks, rule, and the score above which a sample is flagged."""


def points(detection: Detection, tier: Tier, variant: str, told: str = "") -> list[Point]:
    """Operating points: the product's own, held in every group, and a rate of the mix."""
    found = []
    for rate in RATES:
        rule = detection.rule(tier, variant, rate)
        found.append((f"worst group {rate:g}{told}", variant, rule, rule.threshold.value))
    rule = detection.rule(tier, variant, RATES[0])
    value = detection.mix_threshold(rule, variant, RATES[0])
    return [*found, (f"mix {RATES[0]:g}{told}", variant, rule, value)]


def report_benign(detection: Detection, tiers: Sequence[Tier], report: Report) -> None:
    """One row for each tier, benign kind and point; networks that know gradient attacks."""
    images = detection.images
    kinds = [f"fresh/{group}" for group in images.fresh] + [f"unseen/{k}" for k in images.unseen]
    for tier in tiers:
        for point, variant, rule, value in points(detection, tier, GRADIENT):
            for key in kinds:
                fused = detection.fused(rule, variant, key)
                report.add(tier=tier.name, benign=key, point=point, **share(fused > value))


def report_alone(detection: Detection, report: Report) -> None:
    """Each detector by itself, at 1 % of the worst benign group."""
    for label in detection.parts:
        tier = Tier(label, (label,), 0)
        row: Row = {}
        for attack in detection.images.attacked:
            variant = variant_of(attack)
            rule = detection.rule(tier, variant, RATES[0])
            fused = detection.fused(rule, variant, f"attack/{attack}")
            row[attack] = round(float((fused > rule.threshold.value).float().mean()), 3)
        report.add(detector=label, **row)
