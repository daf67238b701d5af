"""Break each neighbour, file and limit of the proxy under load, and check every answer.

A real Triton, a real Redis and `breakwater serve` with two workers; one model's tampered inputs are
purified (`on_failure: open`), another's refused (`on_failure: closed`). Every request has an input
of its own, whose digest the model returns. A table: fault, what is promised, what was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from loadtests import harness
from loadtests.chaos import (
    file_faults,
    last_faults,
    process_faults,
    redis_faults,
    upstream_faults,
)
from loadtests.chaos.fault import Fault
from loadtests.chaos.scene import Scene
from loadtests.chaos.traffic import Traffic
from loadtests.chaos.trial import Trial, attempt, healthy

QUICK = (
    *("Triton killed", "Triton hung (SIGSTOP)", "upstream lies: swapped", "Redis killed"),
    *("audit disk full", "configuration emptied", "detector raises", "worker killed (SIGKILL)"),
)


def main() -> int:
    """Run it; 1 when a promise was not kept."""
    parser = harness.options(__doc__)
    parser.add_argument("--only", metavar="NAME", help="faults whose name contains this")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep logs and files here")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = harness.Report("Chaos: faults under load")
    with tempfile.TemporaryDirectory(prefix="breakwater-chaos-") as temporary:
        folder = options.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trials: list[Trial] = []
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: what there is by then
            asyncio.run(_run(folder, options.only, options.quick, report, trials))
        _goals(report, trials)
    return report.finish(options.json)


async def _run(
    folder: Path, only: str | None, quick: bool, report: harness.Report, trials: list[Trial]
) -> None:
    async with Scene(folder) as scene:
        chosen = [each for each in _faults(scene) if _is_wanted(each, only, quick)]
        traffic = Traffic(scene.settings["listen"])
        try:
            for fault in chosen:
                if not await healthy(scene, traffic):
                    print(f"not in order before: {fault.name}", file=sys.stderr)
                trial = await attempt(scene, traffic, fault)
                trials.append(trial)
                _tell(trial)
                report.add(**_row(trial))
        finally:
            await traffic.close()
        ends = [] if only else await last_faults.run(scene)
        for name, promised, seen, kept in ends:
            report.add(last_fault=name, promised=promised, seen=seen, kept=kept)


def _faults(scene: Scene) -> list[Fault]:
    return [
        *upstream_faults.faults(scene),
        *redis_faults.faults(),
        *file_faults.faults(scene),
        *process_faults.faults(),
    ]


def _is_wanted(fault: Fault, only: str | None, quick: bool) -> bool:
    return only in fault.name if only else not quick or fault.name in QUICK


def _row(trial: Trial) -> dict[str, str | int | float | None]:
    ledger, before, after = trial.ledger, trial.before, trial.after
    told = ", ".join(f"{name} {count}" for name, count in ledger.counts().most_common())
    recovery_s = ledger.recovery_s
    return {
        "fault": trial.fault.name,
        "promised": trial.fault.promised,
        "seen": told,
        "requests": ledger.asked,
        "lost": ledger.lost,
        "swapped": ledger.swapped,
        "bypasses": ledger.bypasses + trial.uncounted,
        "opened": ledger.opened,
        "crashes": trial.crashes,
        "hangs": trial.hangs,
        "recovery_s": None if recovery_s is None else round(recovery_s, 2),
        "mib": round(after.resident_mib - before.resident_mib, 1),
        "descriptors": after.descriptors - before.descriptors,
        "broken": "; ".join(trial.complaints),
    }


def _tell(trial: Trial) -> None:
    row = _row(trial)
    figures = ("lost", "swapped", "bypasses", "opened", "crashes", "hangs", "recovery_s", "mib")
    told = ", ".join(f"{name} {row[name]}" for name in figures)
    broken = f" BROKEN: {row['broken']}" if row["broken"] else ""
    print(f"{row['fault']}: {row['seen']}; {told}{broken}", flush=True)
    for example in trial.ledger.examples:
        print(f"    not as promised: {example}", flush=True)


def _goals(report: harness.Report, trials: list[Trial]) -> None:
    rows = [_row(trial) for trial in trials]
    for figure in ("lost", "swapped", "bypasses", "crashes", "hangs"):
        report.figure(figure, sum(int(row[figure] or 0) for row in rows), "<= 0")
    broken = sum(len(trial.complaints) for trial in trials) + sum(
        row.get("kept") is False for row in report.rows
    )
    report.figure("other broken promises", broken, "<= 0")
    report.figure("longest recovery, s", max((t.ledger.recovery_s or 0 for t in trials), default=0),
                  "<= 40")  # fmt: skip
    report.figure("requests", sum(trial.ledger.asked for trial in trials), ">= 1")


if __name__ == "__main__":
    sys.exit(main())
