"""What the card says of where its figures come from, and of what is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from proxy.config import Config, Model
from proxy.lineage import Lineage
from tuning.card.blocks import Block, Facts, Items, Text
from tuning.card.state import State
from tuning.data_facts import facts, warnings


def measured(state: State) -> Sequence[Block]:
    """Dates, versions, digests and commands."""
    told: list[tuple[str, str]] = []
    if state.artifact is not None:
        provenance = state.artifact.provenance
        told += [
            ("calibrated", f"{provenance.date}, breakwater {provenance.breakwater}"),
            ("calibration.json, sha256", state.calibration_sha256),
            ("benign samples", f"{provenance.samples}, seen as {', '.join(provenance.groups)}"),
        ]
        if provenance.live is not None:
            told.append(("group `live`", "scores of live traffic, screened; no inputs were kept"))
        told += [(f"network {name}, sha256", d) for name, d in provenance.weights.items()]
    if state.report is not None:
        names = ("date", "breakwater", "commit", "command", "seed", "machine", "copy_sha256")
        told += [
            (f"evaluation, {name}", str(state.report[name]))
            for name in names
            if state.report.get(name) not in (None, "")
        ]
    blocks: list[Block] = [Facts(told)] if told else [Text("Nothing was calibrated or measured.")]
    if state.report is not None:
        blocks.append(Text("Images of the evaluation:"))
        blocks += _lineage(state.report.get("data"))
    return blocks


def data(state: State) -> Sequence[Block]:
    """What the thresholds rest on."""
    if state.artifact is None:
        return [Text("There is no usable calibration, so no benign data to speak of.")]
    provenance = state.artifact.provenance
    if provenance.data is None:
        return [Text(f"Only the digest is known: {provenance.data_sha256}")]
    blocks = _lineage(provenance.data.model_dump(mode="json"))
    for group, lineage in provenance.group_data.items():
        blocks += [Text(f"Benign group {group}:"), *_lineage(lineage.model_dump(mode="json"))]
    return blocks


def _lineage(described: Any) -> list[Block]:
    if not isinstance(described, Mapping):
        return [Text("Not described.")]
    try:
        lineage = Lineage.model_validate(dict(described))
    except ValidationError:
        return [Facts([(str(name), str(value)) for name, value in described.items()])]
    told = [f"Warning: {text}" for text in warnings(lineage)]
    return [*([Items(told)] if told else []), Facts(facts(lineage))]


def stored(config: Config, model: Model) -> Sequence[Block]:
    """What the proxy keeps of what it sees."""
    records = config.records
    told = [
        "Audit log: one line for each suspicious or failed request, with caller and scores, never "
        f"inputs; to {config.audit.path or 'standard output'}, kept for as long as that is.",
        f"Scores of up to {records.capacity} samples in each worker's memory, for at most "
        f"{records.max_age_hours:g} hours; never inputs.",
        f"The latest {records.recent} suspicious or failed samples in each worker's memory, "
        + ("with pictures of at most 64x64 pixels." if records.thumbnails else "no pictures."),
    ]
    if model.remembers:
        history = config.history
        where = "in memory" if history.shared is None else "in memory and in a shared Redis"
        told.append(
            f"Salted fingerprints of up to {history.capacity} queries {where}, for "
            f"{history.ttl_minutes:g} minutes; the salt changes every {history.rotate_hours:g} "
            "hours. Never inputs."
        )
    else:
        told.append("No memory of queries: the detector `history` is not configured.")
    return [Items(told)]


def ask() -> Sequence[Block]:
    """Left blank, for people."""
    names = ("owner of the model", "owner of this defence", "reviewed by", "reviewed on")
    return [Text("To be filled in."), Facts([(name, "") for name in (*names, "next review")])]
