"""What a recording says, as the flat rows of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.rule import Rule
from tuning.evaluate.figures import auroc_row, share, share_of_bases, threshold_at
from tuning.evaluate.recording import Recording, Scored
from tuning.evaluate.samples import ATTACK, BENIGN, OOD, UNSEEN
from tuning.evaluate.sizes import ADAPTIVE, TRANSFER
from tuning.evaluate.store import Row

RATES = (0.01, 0.05)
ACTIONS = ("flag", "purify", "block")


@dataclass(frozen=True)
class Points:
    """Above which fused score a sample is flagged."""

    calibrated: float
    """The threshold in force."""
    fresh: tuple[float, ...]
    """At each of `RATES` of the fresh benign images, all groups mixed; inf where too few."""
    benign: Tensor
    """Their fused scores, (images, groups); NaN where one failed."""

    @classmethod
    def of(cls, recording: Recording, rule: Rule) -> Points:
        """The points under a rule."""
        mixed = _fused(recording, BENIGN, rule)
        mixed = mixed.where(mixed.isfinite(), math.nan)
        fresh = tuple(threshold_at(mixed[mixed.isfinite()], rate) for rate in RATES)
        return cls(rule.threshold.value, fresh, mixed)

    def shares(self, name: str, fused: Tensor) -> Row:
        """The share flagged at each point; a score that is not finite counts as not flagged.

        The intervals at `RATES` take those thresholds as given: that they would come out otherwise
        on other benign images is not in them.
        """
        row = share(name, fused > self.calibrated)
        for rate, value in zip(RATES, self.fresh, strict=True):
            label = f"{name}_at_{round(100 * rate)}"
            known = math.isfinite(value)
            empty: Row = {label: None, f"{label}_low": None, f"{label}_high": None}
            row |= share(label, fused > value) if known else empty
        return row


def _fused(recording: Recording, role: str, rule: Rule) -> Tensor:
    """Fused scores of one role, (images, kinds): sample i of every kind is of the same image."""
    kinds = recording.of(role).values()
    return torch.stack([each.fused(rule, recording.detectors) for each in kinds], dim=1)


def benign_rows(recording: Recording, rule: Rule, points: Points) -> list[Row]:
    """One row for each benign variation, known and unseen, and each kind of no class."""
    rows: list[Row] = []
    for role, kind in ((BENIGN, "benign"), (UNSEEN, "unseen"), (OOD, "ood")):
        for name, each in recording.of(role).items():
            fused = each.fused(rule, recording.detectors)
            row: Row = {"kind": kind, "name": name, "samples": len(fused)}
            row |= points.shares("fpr", fused)
            row["failed"] = int((~fused.isfinite()).sum())
            if each.images.y is not None:
                row |= _accuracies("accuracy", each, fused > rule.threshold.value)
            rows.append(row)
    return rows


def attack_rows(recording: Recording, rule: Rule, points: Points) -> list[Row]:
    """One row for each attack, made of those that fool the undefended model."""
    return [
        _attack_row(name, each, each.fused(rule, recording.detectors), points)
        for name, each in recording.of(ATTACK).items()
        if each.images.threat != ADAPTIVE
    ]


def _attack_row(name: str, each: Scored, fused: Tensor, points: Points) -> Row:
    images, kept = each.images, each.kept
    row: Row = {
        "kind": "transfer" if images.threat == TRANSFER else "attack",
        "name": name,
        "attack": images.attack,
        "family": images.family,
        "threat": images.threat,
        "tuned_on": images.tuned_on,
        "tried": len(kept),
        "samples": int(kept.sum()),
        **share("success", kept),
        **points.shares("tpr", fused[kept]),
        **auroc_row(points.benign, fused[kept & fused.isfinite()]),
        "failed": int((~fused.isfinite()).sum()),
        **_accuracies("robust", each, fused > points.calibrated),
        **_distance(each, kept),
    }
    return row


def _distance(each: Scored, kept: Tensor) -> Row:
    clean = each.images.clean
    if clean is None or not kept.any():
        return {"l2": None, "linf_255": None}
    change = (each.images.x - clean).flatten(1)[kept]
    return {
        "l2": round(float(change.norm(dim=1).median()), 3),
        "linf_255": round(255 * float(change.abs().amax(1).median()), 1),
    }


def _accuracies(name: str, each: Scored, flagged: Tensor) -> Row:
    """Share of right answers with each action, and of wrong ones served where it refuses.

    The undefended model's; flag: the same; purify: flagged ones get the purified answer; block:
    what is refused is neither right nor wrong, so `robust_block` counts all but wrong answers
    served, and `accuracy_block` on benign images only right ones served.
    """
    own = each.right[:, 0]
    purified = each.right[:, -1]
    row = share(f"{name}_none", own) | share(f"{name}_flag", own)
    if each.right.shape[1] > 1:
        row |= share(f"{name}_purify", torch.where(flagged, purified, own))
        row |= share(f"{name}_purify_always", purified)
    blocked = own | flagged if name == "robust" else own & ~flagged
    row |= share(f"{name}_block", blocked)
    return row | share("wrong_served_block", ~own & ~flagged)


def summary_rows(rows: Sequence[Row], recording: Recording, rule: Rule) -> list[Row]:
    """Means over attacks, by what the attacker knows, kinds learned from and others apart.

    And over benign kinds, with intervals that take an image as the unit, not its variations.
    """
    found: list[Row] = []
    told = [row for row in rows if row["kind"] in ("attack", "transfer")]
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in told:
        key = (str(row["threat"]), bool(row["tuned_on"]))
        groups.setdefault(key, []).append(row)
    for (threat, tuned), some in groups.items():
        head: Row = {"kind": "summary", "threat": threat, "tuned_on": tuned, "attacks": len(some)}
        names = ("success", "tpr", "tpr_at_1", "tpr_at_5", "auroc", "robust_none")
        means = {n: _mean(some, n) for n in (*names, "robust_purify", "robust_block")}
        samples = sum(int(row["samples"] or 0) for row in some)
        found.append({**head, **means, "samples": samples})
    for kind in ("benign", "unseen", "ood"):
        some = [row for row in rows if row["kind"] == kind]
        if some:
            fused = _fused(recording, kind, rule)
            worst = max(some, key=lambda row: float(row["fpr"] or 0))
            found.append(
                {
                    **{"kind": "summary", "of": kind, "groups": len(some), "images": len(fused)},
                    **share_of_bases("fpr", fused > rule.threshold.value),
                    **{f"worst_{end}": worst[end] for end in ("name", "fpr", "fpr_low")},
                    "worst_fpr_high": worst["fpr_high"],
                }
            )
    return found


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [float(v) for row in rows if (v := row.get(name)) is not None]
    return round(sum(values) / len(values), 4) if values else None
