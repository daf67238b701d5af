"""`breakwater evaluate`: attack a defended model, and write down what became of it."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from proxy import __version__, artifacts
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.evaluation import REPORT_FILE, Evaluation
from proxy.files import write_whole
from tuning import lineage
from tuning.data_facts import warnings
from tuning.evaluate import page
from tuning.evaluate import sizes as threat
from tuning.evaluate.attacks import ATTACKS
from tuning.evaluate.endpoint import sites
from tuning.evaluate.knowing import adaptive
from tuning.evaluate.pictures import Pictures, examples
from tuning.evaluate.queries import NAMES, query_rows
from tuning.evaluate.recording import Recording, record, write
from tuning.evaluate.rows import Points, attack_rows, benign_rows, summary_rows
from tuning.evaluate.samples import Images, Split, split
from tuning.evaluate.serving import chosen, latency_rows, served_rows, timed_images
from tuning.evaluate.sizes import Sizes, sized
from tuning.evaluate.store import Row, digest
from tuning.evaluate.subject import Subject
from tuning.evaluate.tables import show

WORK = "work"
"""Folder, within the results, of what is kept between runs."""
_KNOWS = {
    threat.OBLIVIOUS: "a copy of the model; no defence",
    threat.TRANSFER: "a model of its own that answers like the served one",
    threat.QUERY: "nothing: asks the running sidecar and sees its answers",
    threat.GREY_BOX: "a copy of the model and the purifiers; neither detectors nor calibration",
    threat.ADAPTIVE: "everything: model, purifiers, detectors, fusion and threshold",
}


@dataclass(frozen=True)
class Wanted:
    """What to measure, beside the model and its data."""

    model_file: Path | None = None
    surrogate_file: Path | None = None
    attacks: tuple[str, ...] = ()
    """Names of `ATTACKS` and `queries.NAMES`; empty for the default."""
    threats: tuple[str, ...] = ()
    """Of `sizes.THREATS`; empty for all there can be."""
    samples: int | None = None
    seed: int = 0
    quick: bool = False
    endpoint: str | None = None
    origin: lineage.Origin | None = None
    """What a person says of the data."""

    @property
    def sizes(self) -> Sizes:
        """How much is measured."""
        found = sized(quick=self.quick, samples=self.samples)
        if not self.attacks:
            return found
        return replace(found, attacks=tuple(n for n in self.attacks if n in ATTACKS))

    @property
    def queries(self) -> tuple[str, ...]:
        """The attacks through the endpoint."""
        return tuple(n for n in NAMES if not self.attacks or n in self.attacks)

    def known(self) -> tuple[str, ...]:
        """The threats there can be.

        Raises:
            ConfigError: one is wanted that takes a copy of the model, or a name is unknown.
        """
        unknown = [name for name in self.attacks if name not in (*ATTACKS, *NAMES)]
        if unknown:
            raise ConfigError(
                f"--attacks {' '.join(unknown)}: not known; there are {', '.join(ATTACKS)}, and "
                f"through the endpoint {', '.join(NAMES)}"
            )
        if self.model_file is not None:
            return self.threats or threat.THREATS
        asked = [name for name in self.threats if name in threat.WHITE_BOX]
        if asked:
            raise ConfigError(
                f"--threats {', '.join(asked)}: what knows the model takes a copy of it; give one "
                "with --model-file COPY (.pt, .pt2 or .onnx)"
            )
        return self.threats or (threat.TRANSFER, threat.QUERY)


def run(
    config: Config,
    name: str,
    data: Path,
    out: Path,
    wanted: Wanted | None = None,
    *,
    console: Console | None = None,
) -> int:
    """Evaluate one model's defence and write the report; returns the exit status.

    Raises:
        ConfigError: it cannot be evaluated; says what to do.
        KeyboardInterrupt: it was stopped; what was done by then is kept.
    """
    wanted = wanted or Wanted()
    console = console or Console(stderr=True)
    threats = wanted.known()
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with _progress(console) as progress:
            subject = Subject.load(
                *(config, name, data),
                model_file=wanted.model_file,
                surrogate_file=wanted.surrogate_file,
                work=out / WORK,
                seed=wanted.seed,
                progress=progress,
            )
            report, pictures, evaluation = _evaluated(subject, data, out, wanted, threats)
    except KeyboardInterrupt:
        console.print(f"stopped; what is done is kept in {out / WORK}: run the same again to go on")
        raise
    report["seconds"] = round(time.monotonic() - started)
    write_whole(out / REPORT_FILE, (json.dumps(report, indent=1) + "\n").encode())
    show(console, report)
    page.write(out / "report.html", report, pictures, evaluation)
    console.print(f"written to {out / 'report.html'} and {REPORT_FILE}; took {report['seconds']} s")
    return 0


def _evaluated(
    subject: Subject, data: Path, out: Path, wanted: Wanted, threats: Sequence[str]
) -> tuple[dict[str, object], Pictures, Evaluation]:
    sizes, notes = wanted.sizes, _notes(subject, wanted)
    steps = subject.progress.add_task("evaluate", total=5)
    given = split(subject, sizes)
    rows: list[Row] = []
    extra: dict[str, Images] = {}
    if threat.ADAPTIVE in threats:
        knowing, extra = adaptive(subject, given, sizes)
        rows += knowing
    subject.progress.advance(steps)
    recording = record(subject, sizes, threats=threats, given=given, extra=extra)
    points = Points.of(recording, subject.rule)
    rows += benign_rows(recording, subject.rule, points)
    rows += attack_rows(recording, subject.rule, points)
    subject.progress.advance(steps)
    rows += _live(subject, recording, given, sizes, wanted, threats)
    subject.progress.advance(steps)
    rows += summary_rows(rows)
    about = _about(subject, wanted)
    evaluation = write(out, recording, subject.rule, about)
    subject.progress.advance(steps)
    origin = wanted.origin
    described = lineage.describe(data, subject.data, kind="image", origin=origin, seed=wanted.seed)
    notes += warnings(described)
    report = {
        **about,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "command": " ".join(["breakwater", *sys.argv[1:]])[:1000],
        "quick": wanted.quick,
        "data": described.model_dump(mode="json"),
        "policy": _policy(subject, points),
        "threats": {name: _KNOWS[name] for name in threats},
        "notes": notes,
        "rows": rows,
    }
    subject.progress.advance(steps)
    return report, examples(subject, recording), evaluation


def _live(
    subject: Subject,
    recording: Recording,
    given: Split,
    sizes: Sizes,
    wanted: Wanted,
    threats: Sequence[str],
) -> list[Row]:
    """What takes running sidecars."""
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="breakwater-evaluate-") as folder,
        sites(subject, wanted.endpoint, Path(folder)) as every,
    ):
        sets = chosen(recording, subject, sizes.served)
        for site in every[1:]:
            rows += served_rows(subject, site, sets)
        rows += latency_rows(subject, every, timed_images(recording), sizes.timed)
        if threat.QUERY in threats:
            action = subject.model.action
            asked = [site for site in every[1:] if site.action == action] or every[1:2]
            rows += query_rows(subject, given, sizes, [every[0], *asked], wanted.queries)
    return rows


def _notes(subject: Subject, wanted: Wanted) -> list[str]:
    notes = []
    if subject.data.sha256 in subject.artifact.provenance.data_sha256.split():
        notes.append(
            "the defence was calibrated on this very data: its false-positive rates here are "
            "flattered; evaluate on other images"
        )
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


def _about(subject: Subject, wanted: Wanted) -> dict[str, object]:
    provenance = subject.artifact.provenance
    return {
        "breakwater": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": subject.name,
        "versions": list(subject.spec.versions),
        "seed": wanted.seed,
        "defence": digest(
            json.dumps(artifacts.defence_of(subject.model), sort_keys=True),
            provenance.model_dump_json(),
        ),
        "data_sha256": subject.data.sha256,
        "copy_sha256": subject.copy.sha256 if subject.copy else "",
    }


def _policy(subject: Subject, points: Points) -> dict[str, object]:
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
            for rate, value in zip((0.01, 0.05), points.fresh, strict=True)
        },
        "calibrated": provenance.model_dump(mode="json"),
    }


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
