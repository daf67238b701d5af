"""What purifiers restore, what they cost in clean accuracy, and what a whole system serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import purifiers
from loadtests.harness import Report
from loadtests.quality.detection import Detection, Tier, share
from loadtests.quality.evidence import Witness
from loadtests.quality.networks import GRADIENT
from purifiers.aggregate import mean_of_probabilities
from purifiers.base import Purifier

Recipe = tuple[tuple[str, Mapping[str, object]], ...]
"""Purifiers by name and parameters, applied in this order."""


@dataclass(frozen=True)
class Served:
    """One way to answer: by one purified copy, or by several whose answers are averaged."""

    name: str
    copies: tuple[Recipe, ...]


class Purification:
    """Answers of the model to purified copies.

    Args:
        witness: where answers come from.
        ways: ways to answer.
    """

    def __init__(self, witness: Witness, ways: Sequence[Served]) -> None:
        self.witness = witness
        self.ways = {way.name: way for way in ways}
        self._found: dict[str, Mapping[str, Tensor]] = {}

    def answers(self, name: str, key: str, variant: str) -> Tensor:
        """The answer served for each image of a set, (N, K); `none` is the model's own."""
        if name not in self._found:
            self._found[name] = self._answers(name, variant)
        return self._found[name][key]

    def _answers(self, name: str, variant: str) -> Mapping[str, Tensor]:
        if name == "none":
            return self.witness.answers()
        copies = [
            self.witness.served(self._copy(recipe, variant), variant)
            for recipe in self.ways[name].copies
        ]
        if len(copies) == 1:
            return copies[0]
        stacked = {key: torch.stack([copy[key] for copy in copies]) for key in copies[0]}
        return {key: mean_of_probabilities(answers) for key, answers in stacked.items()}

    def right(self, name: str, key: str, variant: str, labels: Tensor) -> Tensor:
        """Whether the served answer is right, (N,) bool."""
        return self.answers(name, key, variant).argmax(1) == labels

    def _copy(self, recipe: Recipe, variant: str) -> Purifier:
        parts = [purifiers.build(name, params) for name, params in recipe]
        self.witness.networks.equip(parts, variant)
        return parts[0] if len(parts) == 1 else purifiers.Chain(parts)

    def labels(self, key: str) -> Tensor:
        """The true labels of a set."""
        role, _, name = key.partition("/")
        images = self.witness.images
        if role == "attack":
            return images.attacked[name].y
        return images.transferred[name].y if role == "transfer" else images.labels

    def sets(self) -> list[tuple[str, str]]:
        """Sets with labels, and the variant of networks: those that know gradient attacks."""
        images = self.witness.images
        attacks = [(f"attack/{name}", GRADIENT) for name in images.attacked]
        return [("fresh/clean", GRADIENT), *attacks]


def report_purifiers(purification: Purification, report: Report) -> None:
    """Accuracy of each way to answer, on clean images and on what each attack made."""
    for name in ("none", *purification.ways):
        for key, variant in purification.sets():
            right = purification.right(name, key, variant, purification.labels(key))
            report.add(served=name, images=key, **share(right))


@dataclass(frozen=True)
class System:
    """A whole policy: refuse above one rate, serve a purified answer above another."""

    name: str
    tier: Tier
    refuse: float | None
    """False-positive rate of the refusals; None: none is refused."""
    doubt: float
    """Rate of samples that get the purified answer; 1: all."""
    served: str
    """Way to answer samples in doubt."""


def report_system(
    detection: Detection, purification: Purification, systems: Sequence[System], report: Report
) -> None:
    """What each policy refuses, and what it serves wrongly."""
    for system in systems:
        for key, variant in purification.sets():
            refused, right = _outcome(detection, purification, system, key, variant)
            rejected, wrong = share(refused), share(~refused & ~right)
            report.add(
                system=system.name,
                images=key,
                samples=len(right),
                refused=rejected["share"],
                served_wrong=wrong["share"],
                served_wrong_low=wrong["low"],
                served_wrong_high=wrong["high"],
                accuracy=round(float(right.float().mean()), 4),
            )


def _outcome(
    detection: Detection, purification: Purification, system: System, key: str, variant: str
) -> tuple[Tensor, Tensor]:
    """Whether each image is refused, and whether what would be served is right."""
    labels = purification.labels(key)
    rule = detection.rule(system.tier, variant, system.refuse or 0.01)
    fused = detection.fused(rule, variant, key)
    refused = fused > rule.threshold.value
    if system.refuse is None:
        refused = torch.zeros_like(refused)
    in_doubt = torch.ones_like(refused)
    if system.doubt < 1:
        in_doubt = fused > detection.rule(system.tier, variant, system.doubt).threshold.value
    raw = purification.right("none", key, variant, labels)
    purified = purification.right(system.served, key, variant, labels)
    return refused, torch.where(in_doubt, purified, raw)
