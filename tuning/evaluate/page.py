"""The report of an evaluation for readers: one HTML file that opens anywhere, fetching nothing."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import ValidationError

from proxy.evaluation import Evaluation
from proxy.files import write_whole
from proxy.lineage import Lineage
from tuning.data_facts import facts, warnings
from tuning.evaluate import page_detection, page_service, threats
from tuning.evaluate.conclusion import Findings, percent, sentences
from tuning.evaluate.titles import titled
from tuning.page import markup
from tuning.page.document import document
from tuning.page.rows import Row, number

Pictures = Mapping[str, Mapping[str, npt.NDArray[np.uint8]]]
"""Attack -> its images (C, H, W) by caption."""


def write(
    path: Path,
    report: Mapping[str, Any],
    pictures: Pictures,
    evaluation: Evaluation | None = None,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the file.
        report: what `report.json` holds.
        pictures: example images, uint8.
        evaluation: the scores of every sample, for the curves; without it there are none.
    """
    write_whole(path, render(report, pictures, evaluation).encode())


def render(
    report: Mapping[str, Any], pictures: Pictures, evaluation: Evaluation | None = None
) -> str:
    """The page; arguments as `write`."""
    findings = Findings.of(report)
    shown = {
        "Threat models": _threats(findings),
        "Attacks": page_detection.attacks(findings),
        "Few false alarms": page_detection.receiver(evaluation),
        "Benign images": page_detection.benign(findings),
        "Answers by action": page_service.actions(findings),
        "An attacker who knows all": page_service.knowing(findings),
        "Attackers who ask": page_service.queries(findings),
        "Latency and cost": page_service.latency(findings),
        "Pictures": _pictures(pictures),
        "Defence": _policy(report),
        "Data": _data(report),
        "How to reproduce": _reproduce(report),
        "All rows": _rows(findings),
    }
    model = str(report.get("model", ""))
    names = ("model", "date", "breakwater", "commit", "machine")
    about = {name: _words(report[name]) for name in names if report.get(name)}
    return document(
        f"How {model} stands up to attacks",
        about,
        shown,
        title=f"Breakwater: evaluation of {model}",
        lead=_lead(findings) + _notes(report),
    )


def _lead(findings: Findings) -> str:
    first, second = sentences(findings)
    tiles = "".join(
        f"<li><b>{html.escape(value)}</b><small>{html.escape(words)}</small></li>"
        for value, words in _figures(findings)
    )
    return (
        f'<p class="lead">{html.escape(first)} {html.escape(second)}</p>'
        f'<ul class="figures">{tiles}</ul>'
    )


def _figures(findings: Findings) -> list[tuple[str, str]]:
    """The most important figures, each with what it is."""
    found = []
    clean = findings.clean
    if clean is not None:
        aim = "" if math.isnan(findings.wanted) else f"; wanted at most {percent(findings.wanted)}"
        ends = " to ".join(percent(number(clean, f"fpr_{end}")) for end in ("low", "high"))
        found.append((percent(number(clean, "fpr")), f"of clean images flagged, {ends}{aim}"))
    found += [
        (percent(share), f"of {threat} attacks caught, mean of {count}")
        for threat, (share, count) in findings.caught().items()
    ]
    weakest = findings.weakest
    if weakest is not None:
        name = titled(str(weakest.get("name")))
        told = f"caught of {name}, {weakest.get('threat')}: the weakest point"
        found.append((percent(number(weakest, "tpr")), told))
    knowing = findings.knowing()
    if knowing is not None:
        lost, alone = (number(knowing, n) for n in ("strongest", "undefended_strongest"))
        who = f"an attacker who knows all, {knowing.get('eps_255')}/255"
        found.append((percent(lost), f"of images lost to {who}; undefended {percent(alone)}"))
    harm = findings.harm()
    cases = "case" if len(harm) == 1 else "cases"
    found.append((str(len(harm)), f"{cases} in which the defence did worse than none"))
    return found


def _threats(findings: Findings) -> str:
    return markup.note(
        "Whom the defence was measured against. What is not in this table was not measured: an "
        "attacker of another kind, with more time, or with another goal may do better."
    ) + markup.prose(threats.table(findings.rows))


def _notes(report: Mapping[str, Any]) -> str:
    """What to bear in mind while reading."""
    notes = report.get("notes")
    told = [str(note) for note in notes] if isinstance(notes, list) else []
    if report.get("quick"):
        told.append("a quick run: few images, so intervals are wide")
    return "".join(f'<p class="warning"><b>Note:</b> {html.escape(each)}.</p>' for each in told)


def _pictures(pictures: Pictures) -> str:
    """Attacks with what became of them, then single images side by side."""
    shown = [markup.pictures(titled(n), some) for n, some in pictures.items() if len(some) > 1]
    single = {
        f"{titled(name)} ({caption})": image
        for name, some in pictures.items()
        for caption, image in some.items()
        if len(some) == 1
    }
    if single:
        shown.append(markup.pictures("no attacks", single))
    return "".join(shown)


def _policy(report: Mapping[str, Any]) -> str:
    policy = report.get("policy")
    if not isinstance(policy, Mapping):
        return ""
    told = [(str(name), _words(v)) for name, v in policy.items() if name != "calibrated"]
    made = policy.get("calibrated")
    if isinstance(made, Mapping):
        names = ("date", "breakwater", "model_version", "samples", "groups", "weights")
        told += [(f"calibrated: {name}", _words(made[name])) for name in names if made.get(name)]
    return markup.facts(told) if told else ""


def _data(report: Mapping[str, Any]) -> str:
    """What is known of the images evaluated with, and of those calibrated on."""
    policy = report.get("policy")
    made = policy.get("calibrated") if isinstance(policy, Mapping) else None
    calibrated = made.get("data") if isinstance(made, Mapping) else None
    named = {"Evaluated with": report.get("data"), "Calibrated on": calibrated}
    return "".join(
        f"<h3>{name}</h3>{_one(described)}"
        for name, described in named.items()
        if isinstance(described, Mapping) and described
    )


def _one(described: Mapping[str, Any]) -> str:
    try:
        lineage = Lineage.model_validate(dict(described), strict=False)
    except ValidationError:
        return markup.facts([(str(name), _words(value)) for name, value in described.items()])
    told = "".join(
        f'<p class="warning"><b>Warning:</b> {html.escape(text)}.</p>' for text in warnings(lineage)
    )
    return told + markup.facts(facts(lineage))


def _reproduce(report: Mapping[str, Any]) -> str:
    names = ("command", "seed", "breakwater", "commit", "versions", "machine", "date")
    told = [(name, _words(report[name])) for name in names if report.get(name) is not None]
    if not told:
        return ""
    return markup.note(
        "The same command with the same data, model and versions gives the same attacks and "
        "scores, but for latencies and what random purifiers draw in running sidecars."
    ) + markup.facts(told)


def _words(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(v, str | int | float) for v in value):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping | list | tuple):
        return yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False, allow_unicode=True)
    return str(value)


def _rows(findings: Findings) -> str:
    """All rows, folded by kind and columns."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in findings.rows:
        found.setdefault((str(row.get("kind", "other")), *row), []).append(row)
    return "".join(
        markup.folded(f"{kind} ({len(some)} rows)", markup.plain(some))
        for (kind, *_), some in found.items()
    )
