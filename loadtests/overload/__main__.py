"""Overload the proxy in every way there is, beside ordinary clients whose answers are all checked.

A real Triton and `breakwater serve` with one process and small bounds. Attackers run in a process
of their own. A table: situation, promise, what was seen; memory is that beyond the sidecar at rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from loadtests import harness
from loadtests.chaos.traffic import Traffic
from loadtests.overload.scene import Scene
from loadtests.overload.siege import Siege, besieged, capacity
from loadtests.overload.situations import QUICK, SITUATIONS, Situation


def main() -> int:
    """Run it; 1 when a promise was not kept."""
    parser = harness.options(__doc__)
    parser.add_argument("--only", metavar="NAME", help="situations whose name contains this")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep logs and files here")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    harness.warn_if_busy()
    report = harness.Report("Overload")
    sieges: list[Siege] = []
    with tempfile.TemporaryDirectory(prefix="breakwater-overload-") as temporary:
        folder = options.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = [each for each in SITUATIONS if _is_wanted(each, options.only, options.quick)]
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: what there is by then
            asyncio.run(_run(folder, chosen, report, sieges))
    _goals(report, sieges)
    return report.finish(options.json)


async def _run(
    folder: Path, chosen: list[Situation], report: harness.Report, sieges: list[Siege]
) -> None:
    with Scene(folder) as scene:
        traffic = Traffic(scene.address)
        try:
            await capacity(traffic, 3.0)  # to warm up
            clean, tampered = await traffic.leave_out_what_is_misjudged()
            print(f"asks with {clean} clean and {tampered} tampered images", flush=True)
            rate = await capacity(traffic, 5.0)
            print(f"serves {rate:.0f} requests a second", flush=True)
            for situation in chosen:
                if scene.triton.has_crashed:
                    await asyncio.to_thread(scene.triton.restart)
                siege = await besieged(scene, traffic, situation, rate)
                sieges.append(siege)
                row = _row(siege)
                print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
                for example in siege.ledger.examples:
                    print(f"    not as promised: {example}", flush=True)
                report.add(**row)
        finally:
            await traffic.close()


def _is_wanted(situation: Situation, only: str | None, quick: bool) -> bool:
    return only in situation.name if only else not quick or situation.name in QUICK


def _row(siege: Siege) -> harness.Row:
    ledger, recovery_s = siege.ledger, siege.ledger.recovery_s
    seen = sorted(siege.counts.items(), key=lambda item: -item[1])
    return {
        "situation": siege.situation.name,
        "promised": siege.situation.promised,
        "attackers": ", ".join(f"{name} {count:,}" for name, count in seen),
        "requests": ledger.asked,
        "refused": siege.refused,
        "lost": ledger.lost,
        "swapped": ledger.swapped,
        "bypasses": ledger.bypasses,
        "crashes": siege.crashes,
        "hangs": ledger.hung + (recovery_s is None),
        "slower": round(siege.latency_ms(during=True) / siege.latency_ms(during=False), 2),
        "refusal_ms": _percentiles(siege.others_refusals_ms()),
        "attackers_refusal_ms": _percentiles(siege.refusals_ms),
        "peak_mib": round(siege.peak_mib - siege.rest_mib),
        "most_mib": siege.situation.most_mib,
        "after_mib": round(siege.after_mib - siege.rest_mib),
        "descriptors": siege.peak_descriptors,
        "recovery_s": None if recovery_s is None else round(recovery_s, 2),
    }


def _percentiles(found: tuple[float, float] | None) -> str:
    """Median and 99th percentile, as text."""
    return "" if found is None else f"{found[0]:,.0f}, {found[1]:,.0f}"


def _goals(report: harness.Report, sieges: list[Siege]) -> None:
    rows = [_row(siege) for siege in sieges]
    for figure in ("lost", "swapped", "bypasses", "crashes", "hangs"):
        report.figure(figure, sum(int(row[figure] or 0) for row in rows), "<= 0")
    for row in rows:
        where = str(row["situation"])
        report.figure("peak MiB", float(row["peak_mib"] or 0), f"<= {row['most_mib']}", where=where)
    recoveries = [siege.ledger.recovery_s or 0.0 for siege in sieges]
    report.figure("longest recovery, s", max(recoveries, default=0.0), "<= 5")
    refusals = [siege.others_refusals_ms() for siege in sieges]
    slowest = max((found[0] for found in refusals if found), default=0.0)
    report.figure("slowest median refusal, ms", slowest, "<= 100")
    report.figure("requests", sum(siege.ledger.asked for siege in sieges), ">= 1")


if __name__ == "__main__":
    sys.exit(main())
