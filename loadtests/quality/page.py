"""The study's report for readers: one HTML file that opens anywhere and fetches nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadtests.harness import Row
from loadtests.quality import markup, plots, sections
from loadtests.quality.findings import Findings

Pictures = Sequence[tuple[str, Mapping[str, npt.NDArray[np.uint8]]]]
"""Title of a line of pictures, and its images (C, H, W) by caption."""

_ABSENT = '<p class="note">Not part of this run.</p>'


def write(
    path: Path,
    rows: Sequence[Row],
    curves: plots.Curves,
    pictures: Pictures,
    about: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        path: of the file.
        rows: all rows of the report.
        curves: tier -> attack -> (false-positive rates, true-positive rates), both ascending.
        pictures: lines of example images, uint8.
        about: where the figures come from, e.g. commit, machine, command, date.
    """
    findings = Findings.of(rows)
    shown = {
        "Goals": sections.goals(findings),
        "At a glance": sections.glance(findings),
        "Attacks": sections.attacks(findings),
        "Benign images": sections.benign(findings),
        "Few false alarms": sections.receiver(findings, curves),
        "Each detector alone": sections.alone(findings),
        "Cascade and secret": sections.variants(findings),
        "Purifiers": sections.purifiers(findings),
        "Whole systems": sections.systems(findings),
        "An attacker who knows": sections.knowing(findings),
        "Transferred attacks": sections.transferred(findings),
        "Cost and benefit": sections.costs(findings),
        "Pictures": "".join(markup.pictures(*line) for line in pictures),
        "All rows": markup.shapes(rows),
    }
    path.write_text(_document(shown, about), encoding="utf-8")


def _document(shown: Mapping[str, str], about: Mapping[str, str]) -> str:
    anchors = {name: name.lower().replace(" ", "-") for name in shown}
    links = "".join(f'<a href="#{anchor}">{name}</a>' for name, anchor in anchors.items())
    body = "".join(
        f'<section><h2 id="{anchors[name]}">{name}</h2>{content or _ABSENT}</section>\n'
        for name, content in shown.items()
    )
    told = " · ".join(f"{name} <code>{html.escape(value)}</code>" for name, value in about.items())
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Breakwater: what is caught</title>\n<style>\n{style}</style></head>\n<body>"
        "<h1>What is caught, and what is flagged wrongly</h1>"
        f'<p class="about">{told}</p><nav aria-label="Sections">{links}</nav>\n'
        f"{body}</body></html>\n"
    )
