"""The study's report for readers: one HTML file that opens anywhere and fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadtests.quality import sections
from loadtests.quality.findings import Findings, title
from tuning.page import markup, plots
from tuning.page.document import document
from tuning.page.rows import Row

Pictures = Sequence[tuple[str, Mapping[str, npt.NDArray[np.uint8]]]]
"""Title of a line of pictures, and its images (C, H, W) by caption."""


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
        "Pictures": "".join(markup.pictures(title(name), some) for name, some in pictures),
        "All rows": markup.shapes(rows),
    }
    page = document(
        "What is caught, and what is flagged wrongly",
        about,
        shown,
        title="Breakwater: what is caught",
    )
    path.write_text(page, encoding="utf-8")
