"""What `breakwater calibrate --live` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tuning.live_calibration import Outcome


def report(console: Console, outcome: Outcome, fpr: float, recorded: int) -> None:
    """Print what was left out, how the scores have changed, and the thresholds before and after.

    Args:
        fpr: the wanted false-positive rate.
        recorded: samples before screening.
    """
    steps = Table(title=f"Screening of {recorded} recorded samples")
    for column in ("dropped", "samples", "left"):
        steps.add_column(column)
    for step in outcome.steps:
        steps.add_row(step.what, str(step.dropped), str(step.left))
    console.print(steps)
    for excess in outcome.found:
        console.print(
            f"{excess.above} samples are above the previous threshold for {excess.rate:.2%}, "
            f"{excess.expected:.0f} are expected at most: "
            + ("trimmed as contamination" if outcome.trimmed else "accepted as drift")
        )
    shifts = Table(title="Compared with the most similar benign group of the previous calibration")
    for column in ("detector", "group", "KS distance", "p", "median moved by (IQR)"):
        shifts.add_column(column)
    for each in outcome.shifts:
        shifts.add_row(
            *(each.detector, each.group, f"{each.distance:.3f}"),
            *(f"{each.p:.2g}", f"{each.median:+.2f}"),
        )
    console.print(shifts)
    _report_levels(console, outcome, fpr)


def _report_levels(console: Console, outcome: Outcome, fpr: float) -> None:
    table = Table(title=f"Thresholds at a false-positive rate of {fpr:.2%}")
    for column in ("evidence", "old", "new", "worst group", "at most", "live", "live, untrimmed"):
        table.add_column(column)
    for level in outcome.levels:
        table.add_row(
            *(level.name, f"{level.old.value:.3f}", f"{level.new.value:.3f}"),
            *(level.new.worst_group, f"{level.new.fpr_upper:.2%}"),
            *(f"{level.live_upper:.2%}", f"{level.live_upper_untrimmed:.2%}"),
        )
    console.print(table)
    console.print(
        "at most: upper 95 % bound of the rate in the worst group; live: that in live traffic; "
        "untrimmed: had all been benign that was trimmed as contamination"
    )
    before, after = outcome.flagged
    console.print(
        f"of the recorded traffic, attacks in it included, the old threshold flags {before:.2%}, "
        f"the new one {after:.2%}"
    )
