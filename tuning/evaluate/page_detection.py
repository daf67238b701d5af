"""The sections of the evaluation's page on what is flagged: attacks and benign images."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from proxy.evaluation import ATTACK, BENIGN, Evaluation
from tuning.evaluate.conclusion import Findings, interval, percent
from tuning.evaluate.sizes import THREATS
from tuning.evaluate.titles import TUNED, titled
from tuning.page import markup, plots
from tuning.page.ladder import Line, Sign, ladder
from tuning.page.rows import Row, number

_ROLES = {
    "benign": "kinds calibrated on, fresh images",
    "unseen": "benign kinds never calibrated on",
    "ood": "images of no class",
}
_POINTS = 80
_FEWEST = 20
_WIDE = 26
"""Characters above a panel, at most."""


def attacks(findings: Findings) -> str:
    """How much of each attack is flagged."""
    groups: dict[str, list[Line]] = {}
    for threat in THREATS:
        some = [_line(row) for row in findings.attacks if row.get("threat") == threat]
        if some:
            groups[threat] = some
    if not groups:
        return ""
    drawn = ladder(
        "attacks", groups, "tpr", signs=(Sign("tpr_at_1", "o"), Sign("tpr_at_5", "D")), top=1.0
    )
    told = _in_words(groups, "tpr")
    return (
        markup.note(
            "Share of successful attacks that is flagged at the calibrated threshold, with 95 % "
            "intervals. Circle: at the threshold that flags 1 % of the fresh benign images; "
            "diamond: 5 %; their intervals, in the table, take those thresholds as given, though "
            f"other benign images would set others. Striped, {TUNED}: some part of the defence "
            "learned from attacks like it, so the bar says little about other attacks. Hover over "
            "a bar for its figures."
        )
        + markup.plot(drawn, f"Share flagged of each attack. {told}.")
        + _aurocs(findings.attacks)
    )


def _in_words(groups: Mapping[str, Sequence[Line]], figure: str) -> str:
    """A plot's figures, for who cannot see it."""
    return "; ".join(
        f"{heading}: "
        + ", ".join(f"{line.label} {percent(number(line.row, figure))}" for line in lines)
        for heading, lines in groups.items()
    )


def _line(row: Row) -> Line:
    tuned = bool(row.get("tuned_on"))
    label = titled(str(row.get("name", "")))
    return Line(f"{label} {TUNED}" if tuned else label, row, tuned)


def _aurocs(rows: Sequence[Row]) -> str:
    lines: list[Row] = [
        {
            "attack": titled(str(row.get("name"))),
            "threat model": str(row.get("threat")),
            "tuned on": "yes" if row.get("tuned_on") else "no",
            "tried": row.get("tried"),
            "fool the model": interval(row, "success"),
            "flagged": interval(row, "tpr"),
            "at 1 %": interval(row, "tpr_at_1"),
            "at 5 %": interval(row, "tpr_at_5"),
            "AUROC": _area(row),
        }
        for row in rows
    ]
    return markup.folded("As a table", markup.plain(lines))


def _area(row: Row) -> str:
    area, low, high = (number(row, f"auroc{end}") for end in ("", "_low", "_high"))
    return "-" if math.isnan(area) else f"{area:.3f} ({low:.3f} to {high:.3f})"


def receiver(evaluation: Evaluation | None) -> str:
    """The trade between false alarms and attacks caught, where false alarms are few."""
    if evaluation is None:
        return ""
    benign = [kind.fused for kind in evaluation.of(BENIGN).values() if kind.fused is not None]
    if not benign or sum(map(len, benign)) < _FEWEST:
        return ""
    below = np.sort(np.concatenate(benign))
    curves = {}
    attacks = evaluation.of(ATTACK)
    for name in sorted(attacks, key=lambda name: _place(name, evaluation)):
        kind = attacks[name]
        if kind.fused is not None and len(kind.fused) > 1:
            rates = np.geomspace(1e-3, 0.1, _POINTS)
            thresholds = np.quantile(below, 1 - rates, method="higher")
            caught = [float((kind.fused > value).mean()) for value in thresholds]
            curves[_known(name, evaluation)] = (rates, np.array(caught))
    if not curves:
        return ""
    drawn = plots.receiver("receiver", {"defence": curves}, ["defence"])
    told = "; ".join(
        f"{name} {percent(float(np.interp(0.01, *curve)))}" for name, curve in curves.items()
    )
    return markup.note(
        "Share of each attack that is flagged over the share of fresh benign images flagged, all "
        f"kinds mixed ({len(below)} images), from 0.1 % to 10 % on a logarithmic axis."
    ) + markup.plot(drawn, f"Receiver operating characteristics; at 1 % false alarms: {told}.")


def _place(name: str, evaluation: Evaluation) -> tuple[int, str]:
    threat = evaluation.threat(name)
    return (THREATS.index(threat) if threat in THREATS else len(THREATS), name)


def _known(name: str, evaluation: Evaluation) -> str:
    threat = evaluation.threat(name)
    whole = f"{titled(name)}, {threat}" if threat else titled(name)
    return textwrap.shorten(whole, _WIDE, placeholder="...")


def benign(findings: Findings) -> str:
    """How much that is benign is flagged."""
    groups = {
        heading: [_line(row) for row in findings.kind(role)]
        for role, heading in _ROLES.items()
        if findings.kind(role)
    }
    if not groups:
        return ""
    wanted = None if math.isnan(findings.wanted) else findings.wanted
    drawn = ladder("benign", groups, "fpr", wanted=wanted)
    told = _in_words(groups, "fpr")
    line = "" if wanted is None else f" The dashed line is the wanted {percent(wanted)}."
    return markup.note(
        "Share of images flagged that no attacker made, with 95 % intervals, at the calibrated "
        f"threshold.{line} It was set for the first group; of the others it promises nothing."
    ) + markup.plot(drawn, f"Share flagged of each kind of image. {told}.")
