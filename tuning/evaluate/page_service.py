"""The sections of the evaluation's page on what is served: answers, adaptive attackers, cost."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence

from tuning.evaluate.conclusion import Findings, interval
from tuning.evaluate.titles import titled
from tuning.page import markup, plots
from tuning.page.ladder import Line, Sign, ladder
from tuning.page.rows import Row, Table, number
from tuning.page.strip import strip

_ACTIONS = {
    "none": "undefended",
    "flag": "flag",
    "purify": "purify flagged",
    "purify_always": "purify all",
    "block": "block flagged",
}


_COUNT = re.compile(r"[1-9][0-9]{0,8}")


def actions(findings: Findings) -> str:
    """How often the answer served is right, by what is done with flagged samples."""
    on_benign = _answers(findings.kind("benign", "unseen"), "accuracy")
    on_attacks = _answers(findings.attacks, "robust")
    live = [row for row in findings.kind("served") if row.get("name") != "all"]
    parts = []
    if on_benign:
        parts.append(
            markup.note("Benign images: share answered rightly. Bold: the best of a line.")
        )
        parts.append(markup.heat(on_benign, "images", best_of="line"))
    if on_attacks:
        parts.append(
            markup.note(
                "Attacked images, those that fool nobody included: share answered rightly; under "
                "block, share that is not answered wrongly. Bold: the best of a line."
            )
        )
        parts.append(markup.heat(on_attacks, "attack", best_of="line"))
    if live:
        parts.append(markup.note("The same through running sidecars: what clients were served."))
        parts.append(markup.folded("As served", markup.shapes(live)))
        parts.append(_agreement(findings))
    return "".join(parts)


def _answers(rows: Sequence[Row], figure: str) -> Table:
    lines: Table = {}
    for row in rows:
        cells: dict[str, Row] = {
            words: {"share": number(row, f"{figure}_{action}")}
            for action, words in _ACTIONS.items()
            if not math.isnan(number(row, f"{figure}_{action}"))
        }
        if cells:
            name = titled(str(row.get("name")))
            threat = row.get("threat")
            lines[f"{name}, {threat}" if threat else name] = cells
    return lines


def _agreement(findings: Findings) -> str:
    whole = [row for row in findings.kind("served") if row.get("name") == "all"]
    told = ", ".join(f"{row.get('action')} {interval(row, 'agreement')}" for row in whole)
    return markup.note(f"Verdicts that equal those of the scores above: {told}.") if told else ""


def knowing(findings: Findings) -> str:
    """What an attacker gets who knows the whole defence."""
    rows = findings.kind("adaptive")
    skipped = [str(row["skipped"]) for row in rows if row.get("skipped")]
    ways: dict[str, list[Row]] = {}
    for row in rows:
        if number(row, "eps_255") > 0:
            ways.setdefault(str(row.get("branch")), []).append(row)
    if not ways:
        return markup.note(f"Not measured: {skipped[0]}.") if skipped else ""
    drawn = plots.bounds("knowing", ways, defended="strongest", undefended="undefended_strongest")
    told = "; ".join(
        f"{way} at {row.get('eps_255')}/255: {interval(row, 'strongest')} of the defended, "
        f"{interval(row, 'undefended_strongest')} of the undefended"
        for way, some in ways.items()
        for row in some
    )
    worse = [text for text in findings.harm() if text.startswith("an attacker who knows all")]
    verdict = f"Weaker than the model alone: {'; '.join(worse)}." if worse else _NO_HARM
    return (
        markup.note(
            "Share of images that get a wrong answer unflagged, or after purifying, under the "
            "strongest of all images tried, over the attacker's bound, with 95 % intervals. Round "
            "marks: the defended model; square: the model alone."
        )
        + f"<p>{html.escape(verdict)}</p>"
        + markup.plot(drawn, f"Images lost to an attacker who knows all: {told}.", _SIDES)
    )


_NO_HARM = "At no bound is the defended model weaker than the model alone."
_SIDES = (
    '<ul class="legend"><li><i style="background:var(--s0)"></i>● defended</li>'
    '<li><i style="background:var(--muted)"></i>■ the model alone</li></ul>'
)


def queries(findings: Findings) -> str:
    """What attackers get who only ask."""
    rows = findings.kind("query")
    if not rows:
        return ""
    groups: dict[str, list[Line]] = {}
    for row in rows:
        heading = f"{titled(str(row.get('name')))}, reads the {row.get('reads')}"
        groups.setdefault(heading, []).append(
            Line(_ACTIONS.get(str(row.get("action")), str(row.get("action"))), row)
        )
    signs = (Sign("unflagged_success", "o"), Sign("detected", "D"))
    drawn = ladder("queries", groups, "success", signs=signs, top=1.0)
    told = "; ".join(
        f"{heading}, {line.label}: {interval(line.row, 'success')}"
        for heading, lines in groups.items()
        for line in lines
    )
    return (
        markup.note(
            "Share of images for which the attacker was served a wrong answer within its budget of "
            "queries. Circle: by a query that was not flagged; diamond: some query was flagged."
        )
        + markup.plot(drawn, f"Success of attackers who ask: {told}.")
        + _needed(rows)
        + markup.plain([_asked(row) for row in rows])
    )


def _needed(rows: Sequence[Row]) -> str:
    """How many queries each success took; nothing where the report does not say."""
    groups: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        found = row.get("queries_to_success")
        if isinstance(found, str):
            action = str(row.get("action"))
            some = groups.setdefault(titled(str(row.get("name"))), {})
            counts = [int(each) for each in found.split() if _COUNT.fullmatch(each)]
            some[_ACTIONS.get(action, action)] = counts
    if not groups:
        return ""
    told = "; ".join(
        f"{name}, {action}: {', '.join(map(str, counts)) or 'none'}"
        for name, some in groups.items()
        for action, counts in some.items()
    )
    return markup.note(
        "Queries up to the wrong answer, a dot for each image for which the attacker got one; the "
        "upright is their median. Who did not get one within the budget is not in it."
    ) + markup.plot(
        strip("needed", groups, x="queries to success"), f"Queries to each success: {told}."
    )


def _asked(row: Row) -> Row:
    return {
        "attack": titled(str(row.get("name"))),
        "action": row.get("action"),
        "images": row.get("samples"),
        "budget": row.get("budget"),
        "succeeds": interval(row, "success"),
        "median queries to success": row.get("queries_median"),
        "queries an image": row.get("queries_mean"),
        "first flagged at (median)": row.get("detected_at_median"),
        "flagged, share of queries": row.get("flagged_per_query"),
    }


def latency(findings: Findings) -> str:
    """What the defence adds to a lone request, and what it costs."""
    rows, costs = findings.kind("latency"), findings.kind("cost")
    if not rows and not costs:
        return ""
    parts = []
    if rows:
        groups: dict[str, list[Line]] = {}
        for row in rows:
            line = Line(str(row.get("action")), row)
            groups.setdefault(f"{row.get('traffic')} images", []).append(line)
        signs = (Sign("added_p99_ms", "D"),)
        drawn = ladder("latency", groups, "added_p50_ms", signs=signs, unit="ms")
        told = "; ".join(_added(row) for row in rows)
        parts.append(
            markup.note(
                "Latency added to a request sent alone, against the same sidecar without a "
                "defence: bar, at the median; diamond, at the 99th percentile."
            )
        )
        parts.append(markup.plot(drawn, f"Added latency: {told}."))
    parts += [_without_kind(some) for some in (rows, costs) if some]
    return "".join(parts)


def _added(row: Mapping[str, object]) -> str:
    p50, p99 = (number(row, f"added_p{percent}_ms") for percent in (50, 99))
    return f"{row.get('action')}, {row.get('traffic')}: {p50:.2f} ms, p99 {p99:.2f} ms"


def _without_kind(rows: Sequence[Row]) -> str:
    return markup.plain(
        [{k.replace("_", " "): v for k, v in r.items() if k != "kind"} for r in rows]
    )
