"""Rehearse the rendered manifest without a cluster: two pods, rolled, killed and misconfigured.

Needs kubectl and the embedded Triton; network namespaces need root. Several minutes as the
manifest's own times are; --quick shortens them, in the same order.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from loadtests import harness
from loadtests.rehearsal import manifest as manifests
from loadtests.rehearsal.events import Outcome
from loadtests.rehearsal.rehearse import Rehearsed, rehearse
from tuning.triton import TritonUnavailable

_SETTLE_S, _QUICK_SETTLE_S = 12.0, 3.0


def main() -> int:
    """Run it, print and write the table; 1 when a promise was not kept."""
    parser = harness.options(__doc__)
    parser.add_argument(
        "--manifest",
        type=Path,
        default=harness.CHECKOUT / "deploy" / "kustomize" / "base",
        metavar="FOLDER",
        help="what kubectl kustomize renders (default: deploy/kustomize/base)",
    )
    options = parser.parse_args()
    began_s = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # pods and namespaces go all the same

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began_s:6.1f} s  {line}", flush=True)

    try:
        manifest = manifests.read(manifests.render(options.manifest))
        if options.quick:
            manifest = manifest.hastened()
        settle_s = _QUICK_SETTLE_S if options.quick else _SETTLE_S
        rehearsed = rehearse(manifest, settle_s=settle_s, tell=tell)
    except (RuntimeError, ValueError, TritonUnavailable) as error:
        print(f"rehearsal: {error}", file=sys.stderr)
        return 1
    return _report(rehearsed).finish(options.json)


def _report(rehearsed: Rehearsed) -> harness.Report:
    report = harness.Report("Rehearsal of the manifest: two replicas under load")
    for each in rehearsed.outcomes:
        report.add(**_row(each))
    where = {"event": "all", "namespaces": str(rehearsed.namespaces)}
    broken = sum(not each.kept for each in rehearsed.outcomes)
    report.figure("broken promises", broken, "<= 0", **where)
    report.figure("containers the grace was too short for", len(rehearsed.killed), "<= 0", **where)
    if rehearsed.namespaces:
        report.figure("private ports reachable", len(rehearsed.exposed), "<= 0", **where)
        report.figure("open ports not reachable", len(rehearsed.unreachable), "<= 0", **where)
    return report


def _row(outcome: Outcome) -> dict[str, str | float | bool]:
    return {
        "event": outcome.event,
        "requests": outcome.requests,
        "failed": outcome.failed,
        "elsewhere": outcome.failed_elsewhere,
        "longest gap s": outcome.longest_gap_s,
        "last failure s": outcome.last_failure_s,
        "promised": outcome.promised,
        "kept": outcome.kept,
    }


if __name__ == "__main__":
    sys.exit(main())
