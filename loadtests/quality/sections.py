"""The sections of the page: what each says in words, and what it shows."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence

from loadtests.quality import scorecard
from loadtests.quality.detection import ELEVEN
from loadtests.quality.findings import LOOSE, MIXED, STRICT, Findings, pivot, title
from tuning.page import markup, plots
from tuning.page.rows import Row, mean, number, table

_SIDE = 32
"""Image size of the costs that are plotted; others are in the tables."""
_WANTED = 0.01


def goals(findings: Findings) -> str:
    """How many goals are met, and which are not."""
    return scorecard.goals(findings.goals) if findings.goals else ""


def glance(findings: Findings) -> str:
    """One line a tier."""
    caught, mixed = findings.caught(STRICT), findings.caught(MIXED)
    flagged = findings.flagged(STRICT)
    lines: list[Row] = []
    for tier, cells in caught.items():
        benign = flagged.get(tier, {})
        lines.append(
            {
                "tier": tier,
                "caught: mean of eleven": _rounded(mean(cells, ELEVEN)),
                "at 1 % of the mix": _rounded(mean(mixed.get(tier, {}), ELEVEN)),
                "least caught": _extreme(cells, min),
                "flagged: clean": _rounded(mean(benign, ["fresh/clean"])),
                "worst group": _extreme(_role(benign, "fresh"), max),
                "worst new kind": _extreme(_role(benign, "unseen"), max),
            }
        )
    told = markup.note(
        "Shares at 1 % false positives in the worst benign group, unless said otherwise."
    )
    return told + markup.plain(lines) if lines else ""


def _role(cells: Mapping[str, Row], role: str) -> dict[str, Row]:
    return {name: row for name, row in cells.items() if name.startswith(f"{role}/")}


def _extreme(cells: Mapping[str, Row], pick: Callable[..., str]) -> str:
    if not cells:
        return "-"
    name = pick(cells, key=lambda name: number(cells[name], "share"))
    return f"{number(cells[name], 'share'):.3f} {title(name.rpartition('/')[2])}"


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


def attacks(findings: Findings) -> str:
    """How much of each attack is flagged."""
    caught = findings.caught(STRICT)
    if not caught:
        return ""
    drawn = plots.bars("attacks", caught, pale=findings.caught(LOOSE), top=1.02, titled=title)
    means = "; ".join(f"{tier} {mean(cells, ELEVEN):.2f}" for tier, cells in caught.items())
    told = f"Share of each attack that is flagged, by tier. Means of eleven attacks: {means}."
    return markup.note(
        "Share of successful attacks flagged at 1 % false positives in the worst benign group, "
        "with 95 % intervals; pale: at 5 %. No network had seen the kind of attack it is scored "
        "on. Hover over a bar for its figures."
    ) + markup.plot(drawn, told, markup.legend(list(caught)))


def benign(findings: Findings) -> str:
    """How much that is benign is flagged."""
    flagged = findings.flagged(STRICT)
    if not flagged:
        return ""
    drawn = plots.bars("benign", flagged, wanted=_WANTED, titled=title)
    worst = "; ".join(f"{tier} {_extreme(cells, max)}" for tier, cells in flagged.items())
    told = f"Share of each kind of benign image that is flagged, by tier. Worst: {worst}."
    return markup.note(
        "Share of benign images flagged by the same thresholds, with 95 % intervals; the dashed "
        "line is the wanted 1 %. Images are fresh; kinds marked (new) were never calibrated on."
    ) + markup.plot(drawn, told, markup.legend(list(flagged)))


def receiver(findings: Findings, curves: plots.Curves) -> str:
    """The trade between false alarms and attacks caught, where false alarms are few."""
    if not any(curves.values()):
        return ""
    tiers = list(dict.fromkeys((*findings.caught(STRICT), *curves)))
    told = f"Receiver operating characteristic of each attack for {', '.join(curves)}."
    return markup.note(
        "Share of an attack that is caught over the share of benign images flagged, all groups "
        "mixed, from 0.1 % to 10 % (logarithmic)."
    ) + markup.plot(
        plots.receiver("receiver", curves, tiers, title),
        told,
        markup.legend(list(curves), [tiers.index(tier) for tier in curves]),
    )


def alone(findings: Findings) -> str:
    """What each detector sees by itself."""
    if not findings.alone:
        return ""
    return markup.note(
        "Share flagged by each detector by itself, at 1 % of the worst benign group; bold: the "
        "best of a column."
    ) + markup.heat(pivot(findings.alone, "detector"), "detector", titled=title)


def variants(findings: Findings) -> str:
    """What a cascade saves and costs, and how draws by a secret compare with the fixed set."""
    parts = []
    if findings.cascades:
        lines = table(findings.cascades, "cascade", "images")
        parts.append(
            markup.note("Share flagged when a cascade stops at the input where that is sure.")
        )
        parts.append(markup.heat(lines, "cascade", titled=title))
        parts.append(
            markup.note("Share that is not settled by then: the model is asked about copies.")
        )
        parts.append(markup.heat(lines, "cascade", "asked", is_loss=True, titled=title))
    if findings.secrets:
        parts.append(
            markup.note("Share flagged by the fixed set, and by detectors drawn by a secret.")
        )
        parts.append(markup.heat(pivot(findings.secrets, "secret"), "set", titled=title))
    return "".join(parts)


def purifiers(findings: Findings) -> str:
    """What purified copies are answered."""
    if not findings.purified:
        return ""
    return markup.note(
        "Accuracy of the model's answer to the purified copy, on clean images and on successful "
        "attacks; none: its answer to the image itself. Bold: the best of a column."
    ) + markup.heat(table(findings.purified, "served", "images"), "served", titled=title)


def systems(findings: Findings) -> str:
    """What whole policies serve wrongly."""
    lines = table(findings.systems, "system", "images")
    if not lines:
        return ""
    worst: list[Row] = []
    for system, cells in lines.items():
        attacks = [name for name in cells if name.startswith("attack/")]
        attack = max(attacks or cells, key=lambda name: number(cells[name], "served_wrong"))
        lost, clean = cells[attack], cells.get("fresh/clean", {})
        worst.append(
            {
                "system": system,
                "worst on": title(attack),
                "served wrong": _rounded(number(lost, "served_wrong")),
                "low": _rounded(number(lost, "served_wrong_low")),
                "high": _rounded(number(lost, "served_wrong_high")),
                "clean refused": _rounded(number(clean, "refused")),
                "clean accuracy": _rounded(number(clean, "accuracy")),
            }
        )
    return (
        markup.note(
            "Share of images that get a wrong answer: not refused, and what is served is wrong."
        )
        + markup.plain(worst)
        + markup.heat(lines, "system", "served_wrong", is_loss=True, titled=title)
    )


def knowing(findings: Findings) -> str:
    """What an attacker gets who knows the defence."""
    if not findings.knowing:
        return ""
    defences: dict[str, list[Row]] = {}
    for row in findings.knowing:
        defences.setdefault(str(row["defence"]), []).append(row)
    weaker: dict[str, set[str]] = {}
    for row in findings.knowing:
        if number(row, "strongest") > number(row, "undefended_strongest"):
            weaker.setdefault(str(row["defence"]), set()).add(f"{row['eps_255']}/255")
    told = "No defence is weaker than the model alone at any bound or budget."
    if weaker:
        where = (f"{name} at {', '.join(sorted(bounds))}" for name, bounds in weaker.items())
        told = f"Weaker than the model alone: {'; '.join(where)}."
    budgets = sorted({round(number(row, "steps")) for row in findings.knowing})
    return (
        markup.note(
            "Share of images that are answered wrongly and not flagged, under the strongest of all "
            "images tried, over the attacker's bound, with 95 % intervals. Solid: "
            f"{budgets[-1]} gradient steps; dashed: {', '.join(map(str, budgets[:-1]))}."
        )
        + f"<p>{html.escape(told)}</p>"
        + markup.plot(
            plots.bounds(
                "knowing", defences, defended="strongest", undefended="undefended_strongest"
            ),
            told,
            _SIDES,
        )
    )


_SIDES = (
    '<ul class="legend"><li><i style="background:var(--s0)"></i>defended</li>'
    '<li><i style="background:var(--muted)"></i>the model alone</li></ul>'
)


def transferred(findings: Findings) -> str:
    """Attacks that were made on another model."""
    if not findings.transferred:
        return ""
    return markup.note("Attacks made on another model, then sent to the one that is served.") + (
        markup.plain(findings.transferred)
    )


def costs(findings: Findings) -> str:
    """What parts cost, and what they are good for."""
    some = [row for row in findings.costs if row.get("side", _SIDE) == _SIDE]
    detected = {
        name: mean(cells, cells) for name, cells in pivot(findings.alone, "detector").items()
    }
    served: dict[str, float] = {}
    for name, cells in table(findings.purified, "served", "images").items():
        right = mean(cells, [key for key in cells if key.startswith("attack/")])
        served[name] = right
        served.setdefault(name.partition("(")[0], right)  # costs leave out the parameters
    parts = ""
    for kind, benefits, y in (
        ("detector", detected, "mean share of attacks caught, alone"),
        ("purifier", served, "mean accuracy on attacks"),
    ):
        rows = [row for row in some if row["kind"] == kind and str(row["part"]) in benefits]
        if rows:
            parts += _scatter(kind, rows, benefits, y)
    return parts


def _scatter(kind: str, rows: Sequence[Row], benefits: Mapping[str, float], y: str) -> str:
    points = [
        plots.Point(
            str(row["part"]),
            number(row, "ms_32"),
            benefits[str(row["part"])],
            round(number(row, "queries")),
        )
        for row in rows
    ]
    best = max(points, key=lambda point: point.benefit)
    told = f"{y} over cost of each {kind}. Best: {best.label} with {best.benefit:.2f}."
    x = f"CPU milliseconds an image, batches of 32, {_SIDE} pixels, one thread (logarithmic)"
    queries = sorted({point.series for point in points})
    named = [f"{count or 'no'} extra {'query' if count == 1 else 'queries'}" for count in queries]
    drawn = plots.scatter(kind, points, x=x, y=y)
    heading = f"<h3>{kind.capitalize()}s</h3>"
    return heading + markup.plot(drawn, told, markup.legend(named, queries))
