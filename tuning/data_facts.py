"""What was found in a data file, in words: for the terminal, the report and the card."""

from __future__ import annotations

from proxy.lineage import Classes, Finding, Lineage


def summary(lineage: Lineage) -> str:
    """What was found, in one line."""
    classes = f"{lineage.classes.count} classes" if lineage.classes else "no labels"
    return (
        f"{lineage.source} (licence: {lineage.licence}), {lineage.samples} {lineage.kind}s of "
        f"{_size(lineage)}, {classes}, {lineage.duplicates.count} copies, "
        f"{lineage.near_duplicates.share:.1%} near copies, about {lineage.effective} distinct, "
        f"{lineage.outliers.count} outliers, sha256 {lineage.sha256[:12]}"
    )


def facts(lineage: Lineage) -> list[tuple[str, str]]:
    """What there is to say of the data: name and words, for tables."""
    found = [
        ("source", lineage.source),
        ("licence", lineage.licence),
        ("sha256", lineage.sha256 or "no file"),
        ("samples", f"{lineage.samples} ({lineage.kind}s of {_size(lineage)})"),
        ("distinct", f"about {lineage.effective}, copies and near copies counted once"),
        ("classes", _balance(lineage.classes)),
    ]
    found += [
        (name, _told(finding))
        for name, finding in (
            ("copies", lineage.duplicates),
            ("near copies", lineage.near_duplicates),
            ("constant", lineage.constant),
            ("outliers", lineage.outliers),
        )
    ]
    versions = ", ".join(f"{name} {version}" for name, version in lineage.versions.items())
    return [*found, ("looked at", f"{lineage.date}, {versions}")]


def _told(finding: Finding) -> str:
    places = f", e.g. sample {_places(finding)}" if finding.examples else ""
    return (
        f"{finding.count} of {finding.looked_at} ({finding.share:.1%}{places}); judged by: "
        f"{finding.how}"
    )


def _balance(classes: Classes | None) -> str:
    if classes is None:
        return "no labels in the file, so the balance is not known"
    return (
        f"{classes.count}, of {classes.smallest} to {classes.largest} samples; as uneven as "
        f"{classes.effective:.3g} equal ones"
    )


def _size(lineage: Lineage) -> str:
    return f"{'x'.join(map(str, lineage.shape)) or '1'} {lineage.dtype}"


def warnings(lineage: Lineage, needed: int = 0) -> list[str]:
    """What a person must know before trusting numbers that rest on this data.

    Args:
        lineage: of the data.
        needed: samples that the wanted false-positive rate takes.
    """
    checks = (_of_copies(lineage, needed), _of_oddities(lineage), _of_classes(lineage))
    return [text for some in checks for text in some]


def _of_copies(lineage: Lineage, needed: int) -> list[str]:
    told = []
    if 1 - lineage.effective / lineage.samples >= 0.05:
        told.append(
            f"{lineage.duplicates.share:.0%} of the samples are copies, and "
            f"{lineage.near_duplicates.share:.0%} of the others nearly: about {lineage.effective} "
            f"of {lineage.samples} are distinct, and those are what counts. Bounds and intervals "
            "take all samples for independent, so they are too narrow"
        )
    if lineage.effective < needed <= lineage.samples:
        told.append(
            f"about {lineage.effective} distinct samples are fewer than the {needed} that the "
            "wanted rate takes: the threshold may be off; add other samples, not copies"
        )
    return told


def _of_oddities(lineage: Lineage) -> list[str]:
    told = []
    if lineage.constant.count:
        told.append(
            f"{lineage.constant.count} samples are constant, e.g. {_places(lineage.constant)}: is "
            "that benign traffic?"
        )
    if lineage.outliers.share > 0.01:
        told.append(
            f"{lineage.outliers.share:.1%} of the samples are unlike the others, e.g. "
            f"{_places(lineage.outliers)}: if they are not benign traffic, take them out, or "
            "thresholds are too high"
        )
    return told


def _of_classes(lineage: Lineage) -> list[str]:
    found = lineage.classes
    if found is None or found.largest <= 10 * found.smallest:
        return []
    return [
        f"classes are unequal: {found.smallest} to {found.largest} samples. What is said of the "
        "whole may not hold for the rare ones"
    ]


def _places(finding: Finding) -> str:
    return ", ".join(map(str, finding.examples[:3]))
