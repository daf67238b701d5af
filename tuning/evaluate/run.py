"""`breakwater evaluate`: attack a defended model, and write down what became of it."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
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

from proxy.config import Config
from proxy.evaluation import REPORT_FILE, Evaluation
from proxy.files import write_whole
from tuning import lineage
from tuning.data_facts import warnings
from tuning.evaluate import page
from tuning.evaluate import sizes as threat
from tuning.evaluate.declared import about_of, notes_of, policy_of
from tuning.evaluate.endpoint import sites
from tuning.evaluate.knowing import adaptive
from tuning.evaluate.pictures import Pictures, examples
from tuning.evaluate.queries import query_rows
from tuning.evaluate.recording import Recording, record, write
from tuning.evaluate.rows import Points, attack_rows, benign_rows, summary_rows
from tuning.evaluate.samples import Images, Split, split
from tuning.evaluate.serving import chosen, latency_rows, served_rows, timed_images
from tuning.evaluate.sizes import Sizes
from tuning.evaluate.store import Row
from tuning.evaluate.subject import Subject
from tuning.evaluate.tables import show
from tuning.evaluate.threats import MODELS
from tuning.evaluate.wanted import Wanted

WORK = "work"
"""Folder, within the results, of what is kept between runs."""


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
    sizes, notes = wanted.sizes, notes_of(subject, wanted)
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
    rows += summary_rows(rows, recording, subject.rule)
    about = about_of(subject, wanted)
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
        "policy": policy_of(subject, points),
        "threats": {name: MODELS[name].knows for name in threats},
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
