"""What a report declares beside its figures: attackers, policy, provenance and caveats."""

from __future__ import annotations

from datetime import UTC, datetime

import torch

from proxy import __version__
from proxy.artifacts import Artifact
from tuning.dataset import Dataset
from tuning.evaluate.rows import RATES, Points
from tuning.evaluate.subject import Subject
from tuning.evaluate.wanted import Wanted
from tuning.lineage import FINGERPRINTS, fingerprints


def notes_of(subject: Subject, wanted: Wanted) -> list[str]:
    """What a reader must know before trusting the figures; shown at once."""
    notes = flattered(subject.data, subject.artifact)
    if wanted.model_file is None:
        notes.append("no copy of the model was given, so no attacker knows it (--model-file)")
    if not subject.purifiers:
        notes.append(
            "no purifiers are configured: there is no grey-box attack and no purify action"
        )
    served = ",".join(subject.spec.versions)
    if subject.artifact.provenance.model_version != served:
        notes.append(
            f"calibrated on version {subject.artifact.provenance.model_version} of the model, "
            f"Triton serves {served}: calibrate again"
        )
    for note in notes:
        subject.progress.console.print(f"note: {note}", markup=False)
    return notes


def flattered(data: Dataset, artifact: Artifact) -> list[str]:
    """How the data is no fresh data, in words: some part of the defence was made with it."""
    advice = "evaluate on other images"
    notes = []
    kept = artifact.samples
    if data.sha256 in artifact.provenance.data_sha256.split():
        notes.append(
            "the defence was calibrated on this very data: its false-positive rates here are "
            f"flattered; {advice}"
        )
    elif kept is not None and (shared := int(torch.isin(fingerprints(data.x), kept).sum())):
        least = "at least " if len(kept) >= FINGERPRINTS else ""
        notes.append(
            f"the defence was calibrated on {least}{shared} of these {len(data.x)} images: its "
            f"false-positive rates here are flattered; {advice}"
        )
    plans = {name: each.training.plan for name, each in artifact.networks.items()}
    same = [name for name, plan in plans.items() if plan.data_sha256 == data.sha256]
    if same:
        notes.append(
            f"this very data trained {', '.join(same)}: scores of other images differ, so the "
            f"figures here are flattered; {advice}"
        )
    return notes


def about_of(subject: Subject, wanted: Wanted) -> dict[str, object]:
    """Of which model, by what, with which seed."""
    return {
        "breakwater": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": subject.name,
        "versions": list(subject.spec.versions),
        "seed": wanted.seed,
        # As in the records of live traffic: whoever compares the two must know a stale one.
        "defence": subject.artifact.digest,
        "data_sha256": subject.data.sha256,
        "copy_sha256": subject.copy.sha256 if subject.copy else "",
    }


def policy_of(subject: Subject, points: Points) -> dict[str, object]:
    """The defence under test, as configured and calibrated."""
    threshold = subject.rule.threshold
    provenance = subject.artifact.provenance
    return {
        "config": subject.model.model_dump(mode="json", exclude_defaults=True),
        "detectors": [part.name for part in subject.detectors],
        "purifiers": [part.key for part in subject.purifiers],
        "threshold": threshold.value,
        "fpr": subject.model.fpr,
        "fpr_upper": threshold.fpr_upper,
        "worst_group": threshold.worst_group,
        "fresh_thresholds": {
            f"{rate:g}": value if value < float("inf") else None
            for rate, value in zip(RATES, points.fresh, strict=True)
        },
        "calibrated": provenance.model_dump(mode="json"),
    }
