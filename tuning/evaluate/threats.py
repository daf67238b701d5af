"""Who attacks: what each kind of attacker knows, sees, may do and may spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuning.evaluate.sizes import ADAPTIVE, GREY_BOX, OBLIVIOUS, QUERY, THREATS, TRANSFER
from tuning.page.rows import Row, number


@dataclass(frozen=True)
class Threat:
    """One kind of attacker, in words."""

    knows: str
    sees: str
    does: str


MODELS: dict[str, Threat] = {
    OBLIVIOUS: Threat(
        "the model with its weights; not that there is a defence",
        "the gradients of a copy of the model",
        "makes an image offline and sends it once",
    ),
    TRANSFER: Threat(
        "a model of its own that learned from the served one's answers",
        "the gradients of that model",
        "makes an image offline and sends it once",
    ),
    QUERY: Threat(
        "the endpoint; neither model nor defence",
        "the answers to its queries: class scores, or the class alone",
        "asks again and again, one image after another",
    ),
    GREY_BOX: Threat(
        "the model with its weights, and the purifiers; neither detectors nor thresholds",
        "gradients through the purifiers (BPDA), in expectation over their draws (EOT)",
        "makes an image that fools the model with and without them, and sends it once",
    ),
    ADAPTIVE: Threat(
        "everything: model, purifiers, detectors, fusion, calibration and threshold",
        "gradients through all of it (BPDA, EOT), with a loss for the model and the detectors",
        "makes an image that is wrong and not flagged, or wrong after purifying, and sends it once",
    ),
}


_ATTACKS = ("attack", "transfer", "adaptive", "query")
"""Kinds of row that are results of attackers."""


def table(rows: Sequence[Row]) -> list[Row]:
    """The threat models as rows for readers, with what was measured of each.

    Args:
        rows: of the report.
    """
    return [
        {
            "threat model": name,
            "knows": told.knows,
            "sees": told.sees,
            "does": told.does,
            "budget": _budget(some := [row for row in rows if row.get("threat") == name]),
            "measured": _measured(some),
        }
        for name in THREATS
        if (told := MODELS[name])
    ]


def _measured(rows: Sequence[Row]) -> str:
    skipped = [str(row["skipped"]) for row in rows if row.get("skipped")]
    told = [row for row in rows if row.get("kind") in _ATTACKS and not row.get("skipped")]
    if not told:
        return f"no: {skipped[0]}" if skipped else "no"
    most = max(int(number(row, "tried" if row.get("tried") else "samples")) for row in told)
    count = f"{len(told)} {'result' if len(told) == 1 else 'results'}"
    return f"yes, {count} of up to {most} images"


def _budget(rows: Sequence[Row]) -> str:
    """How far and how long, as the rows say."""
    found = []
    bounds = sorted({number(row, "eps_255") for row in rows if row.get("eps_255")})
    if bounds:
        found.append(f"each pixel by {', '.join(f'{b:g}' for b in bounds)}/255")
    reached = sorted({number(row, "linf_255") for row in rows if row.get("linf_255")})
    if reached and not bounds:
        ends = " to ".join(f"{end:g}" for end in sorted({reached[0], reached[-1]}))
        found.append(f"pixels by up to {ends} of 255 (medians)")
    for figure, unit in (("steps", "gradient steps"), ("budget", "queries")):
        counts = sorted({int(number(row, figure)) for row in rows if row.get(figure)})
        if counts:
            found.append(f"{' or '.join(map(str, counts))} {unit}")
    return ", ".join(found) or "as the attacks' usual settings"
