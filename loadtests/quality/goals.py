"""What is to be reached, and what was: one figure each, from the rows of the study."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.harness import Report, Row
from loadtests.quality.detection import ELEVEN

_MIX = "mix 0.01"
_SEEN = "mix 0.01 (PGD seen)"


def report_goals(report: Report) -> None:
    """Append the figures with a goal.

    Goals on attacks were set for 1 % of the benign mix, with networks that know gradient attacks.
    """
    rows = list(report.rows)
    _tier0(rows, report)
    _tier2(rows, report)
    _rest(rows, report)
    _systems(rows, report)
    _harm(rows, report)


def _find(rows: Sequence[Row], **wanted: str) -> list[Row]:
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def _detected(rows: Sequence[Row], tier: str, attack: str, point: str = _SEEN) -> float:
    (row,) = _find(rows, tier=tier, attack=attack, point=point)
    return float(row["share"] or 0)


def _mean(rows: Sequence[Row], tier: str, point: str = _SEEN) -> float:
    return sum(_detected(rows, tier, attack, point) for attack in ELEVEN) / len(ELEVEN)


def _false(rows: Sequence[Row], tier: str, role: str, point: str = _MIX) -> float:
    shares = [
        float(row["share"] or 0)
        for row in _find(rows, tier=tier, point=point)
        if str(row.get("benign", "")).startswith(role)
    ]
    return max(shares)


def _tier0(rows: Sequence[Row], report: Report) -> None:
    tier = "0 with residual_cnn"
    for attack in ("fgsm8", "patch8", "pgd2", "pgd4", "pgd8"):
        value = _detected(rows, tier, attack)
        report.figure("tier 0 detected", value, ">= 0.97", at=_SEEN, images=attack)
    report.figure("tier 0 mean of 11", _mean(rows, tier), ">= 0.82", at=_SEEN, images="attacks")
    worst = _false(rows, tier, "fresh/")
    report.figure("tier 0 worst benign group", worst, "<= 0.05", at=_MIX, images="benign")


def _tier2(rows: Sequence[Row], report: Report) -> None:
    tier = "2 with residual_cnn"
    goals = {
        **{"square8": ">= 0.85", "cw": ">= 0.8", "deepfool": ">= 0.6"},
        **{"smooth4": ">= 0.85", "smooth8": ">= 0.95"},
    }
    for attack, goal in goals.items():
        value = _detected(rows, tier, attack)
        report.figure("tier 2 detected", value, goal, at=_SEEN, images=attack)
    report.figure("tier 2 mean of 11", _mean(rows, tier), ">= 0.92", at=_SEEN, images="attacks")
    clean = _false(rows, tier, "fresh/clean")
    report.figure("tier 2 clean", clean, "<= 0.01", at=_MIX, images="benign")
    worst = _false(rows, tier, "fresh/")
    report.figure("tier 2 worst benign group", worst, "<= 0.03", at=_MIX, images="benign")


def _rest(rows: Sequence[Row], report: Report) -> None:
    bare, peers = "2: + two copies", "3: + another model"
    report.figure(
        "tier 2 untrained mean of 11", _mean(rows, bare, _MIX), ">= 0.88", at=_MIX, images="attacks"
    )
    worst = _false(rows, bare, "fresh/")
    report.figure("tier 2 untrained worst group", worst, "<= 0.04", at=_MIX, images="benign")
    report.figure("tier 3 mean of 11", _mean(rows, peers), ">= 0.94", at=_SEEN, images="attacks")
    worst = _false(rows, peers, "fresh/")
    report.figure("tier 3 worst benign group", worst, "<= 0.03", at=_MIX, images="benign")
    for tier in ("0: input only", "2: + two copies", "2 with residual_cnn"):
        unseen = _false(rows, tier, "unseen/", "worst group 0.01")
        report.figure("kinds never calibrated on", unseen, "<= 0.05", at="0.01", images=tier)


def _systems(rows: Sequence[Row], report: Report) -> None:
    for name in dict.fromkeys(str(row["system"]) for row in rows if "system" in row):
        of = _find(rows, system=name)
        wrong = max(float(r["served_wrong"] or 0) for r in of if "attack" in str(r["images"]))
        (clean,) = _find(of, images="fresh/clean")
        report.add(worst_served_wrong=name, value=wrong, clean_refused=clean["refused"])
    best = min(
        (row for row in report.rows if "worst_served_wrong" in row),
        key=lambda row: float(row["value"] or 0),
    )
    told = str(best["worst_served_wrong"])
    report.figure("worst attack served wrong", float(best["value"] or 0), "<= 0.08", images=told)
    refused = float(best["clean_refused"] or 0)
    report.figure("clean refused", refused, "<= 0.01", images=told)
    raw = _accuracy(rows, "none", "fresh/clean")
    for served, images, goal in (
        ("guided_denoiser", "fresh/clean", ">= 0.96"),
        ("guided_denoiser", "attack/pgd8", ">= 0.85"),
        ("guided_denoiser", "attack/cw", ">= 0.97"),
        ("guided_denoiser", "attack/square8", ">= 0.85"),
        ("patch_suppression", "attack/patch8", ">= 0.7"),
    ):
        value = _accuracy(rows, served, images) / (raw if images == "fresh/clean" else 1)
        report.figure("purifier served always", value, goal, at=served, images=images)
    for name in ("jpeg when flagged (1 %)", "jpeg in doubt (10 %)"):
        (clean,) = _find(rows, system=name, images="fresh/clean")
        lost = raw - float(clean["accuracy"] or 0)
        report.figure("clean accuracy lost", lost, "<= 0.003", at=name, images="fresh/clean")


def _accuracy(rows: Sequence[Row], served: str, images: str) -> float:
    (row,) = _find(rows, served=served, images=images)
    return float(row["share"] or 0)


def _harm(rows: Sequence[Row], report: Report) -> None:
    """The deployed default only flags, and purifies at most what it flags."""
    for row in rows:
        if str(row.get("defence", "")).startswith("tier"):
            more = float(row["strongest"] or 0) - float(row["undefended_strongest"] or 0)
            report.figure(
                "more often wrong than undefended",
                more,
                "<= 0",
                at=f"{row['eps_255']}/255, {row['steps']} steps",
                images=str(row["defence"]),
            )
