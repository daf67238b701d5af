"""The choice as tables, rows and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from tuning.search.front import Choice, Threat
from tuning.search.latency import Anchor, Cost
from tuning.search.optimise import Limits, Trial
from tuning.search.outcome import Outcome
from tuning.search.promises import Row
from tuning.search.recorded import CLEAN, Recorded

MOST_ROWS = 12
"""Of a printed front; what was taken is always among them."""


def front_table(choice: Choice, limits: Limits) -> Table:
    """The front against one threat model, the policy that is taken marked."""
    made = Table(
        title=f"{escape(choice.threat.name)}: policies within {limits.added_p99_ms:g} ms of p99, "
        f"{limits.fpr:.2%} false alarms, {limits.loss:.2%} accuracy",
        caption="p99: ms over pass-through; alarms: of the worst benign group; of attacks that "
        "fool the bare model: wrong answers unnoticed, wrong answers, and harm: 1 each, 1/2 if "
        "flagged",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    made.add_column("policy", min_width=26)
    for title in ("p99", "alarms", "accuracy", "missed", "wrong", "harm"):
        made.add_column(title, justify="right", no_wrap=True)
    for trial in _thinned(choice):
        outcome = trial.outcome
        missed, wrong = shares(outcome, choice.threat.attacks)
        made.add_row(
            escape(trial.candidate.name),
            f"{trial.predicted.added_p99_ms:+.2f}",
            f"{outcome.fpr:.2%}",
            f"{0.0 - outcome.loss:+.2%}",
            f"{missed:.0%}",
            f"{wrong:.0%}",
            f"{outcome.harm(choice.threat.attacks):.3f}",
            style="bold green" if trial is choice.taken else None,
        )
    return made


def _thinned(choice: Choice) -> list[Trial]:
    """Evenly chosen, with both ends and what was taken."""
    trials = list(choice.front)
    if choice.taken not in trials:
        trials.append(choice.taken)
        trials.sort(key=lambda t: t.predicted.added_p99_ms)
    if len(trials) <= MOST_ROWS:
        return trials
    step = (len(trials) - 1) / (MOST_ROWS - 1)
    kept = {round(i * step) for i in range(MOST_ROWS)} | {trials.index(choice.taken)}
    return [trials[i] for i in sorted(kept)]


def shares(outcome: Outcome, attacks: Sequence[str]) -> tuple[float, float]:
    """Means over attacks: wrong answers served unnoticed, and wrong answers served."""
    known = [outcome.attacks[name] for name in attacks if name in outcome.attacks]
    count = max(len(known), 1)
    missed = sum(each.missed.share for each in known) / count
    return missed, sum(each.wrong.share for each in known) / count


def trial_row(trial: Trial, threats: Sequence[Threat], limits: Limits) -> Row:
    """A candidate as a flat row."""
    candidate, outcome, predicted = trial.candidate, trial.outcome, trial.predicted
    stops = candidate.stops
    row: Row = {
        "policy": candidate.name,
        "detectors": " ".join(candidate.detectors),
        "fpr": candidate.fpr,
        "cascade_clean": None if stops is None else stops[0],
        "cascade_suspicious": None if stops is None else stops[1],
        "action": candidate.action,
        "chain": candidate.chain,
        "dispatch": candidate.dispatch,
        "threshold": round(outcome.threshold.value, 5),
        "within_limits": trial.keeps(limits),
        "p50_ms": round(predicted.p50_ms, 3),
        "p99_ms": round(predicted.p99_ms, 3),
        "added_p50_ms": round(predicted.added_p50_ms, 3),
        "added_p99_ms": round(predicted.added_p99_ms, 3),
        "cpu_ms": round(predicted.cpu_ms, 3),
        "copies": round(predicted.copies, 4),
        "false_alarms": round(outcome.fpr, 5),
        "false_alarms_group": outcome.worst_group,
        "accuracy_loss": round(outcome.loss, 5),
    }
    for threat in threats:
        missed, wrong = shares(outcome, threat.attacks)
        row[f"harm, {threat.name}"] = round(outcome.harm(threat.attacks), 4)
        row[f"unnoticed, {threat.name}"] = round(missed, 4)
        row[f"wrong, {threat.name}"] = round(wrong, 4)
    return row


def attack_rows(outcome: Outcome, recorded: Recorded) -> list[Row]:
    """What a policy does to each attack, on samples the search did not see."""
    rows = []
    for name, each in outcome.attacks.items():
        row: Row = {
            "attack": name,
            "threat": recorded.threats.get(name, ""),
            "unseen": name in recorded.kept_back,
            "tuned_on": name in recorded.tuned_on,
            "samples": each.wrong.total,
        }
        for figure, count in (
            ("unnoticed", each.missed),
            ("wrong", each.wrong),
            ("right", each.right),
        ):
            low, high = count.interval
            row |= {
                figure: round(count.share, 4),
                f"{figure}_low": round(low, 4),
                f"{figure}_high": round(high, 4),
            }
        rows.append(row)
    return rows


def attack_table(rows: Sequence[Row]) -> Table:
    """The same for people."""
    made = Table(
        box=SIMPLE_HEAD,
        title="The recommended policy on samples the search did not see",
        caption="unseen: no attack of its family was searched on; tuned on: some part of the "
        "defence learned from it",
    )
    for title in ("attack", "threat", "", "n", "unnoticed", "wrong", "right"):
        made.add_column(title, justify="left" if title in ("attack", "threat", "") else "right")
    for row in rows:
        marks = [mark for mark in ("unseen", "tuned_on") if row[mark]]
        made.add_row(
            escape(str(row["attack"])),
            escape(str(row["threat"])),
            ", ".join(marks).replace("_", " "),
            str(row["samples"]),
            *(
                f"{row[f]:.0%} ({row[f'{f}_low']:.0%}-{row[f'{f}_high']:.0%})"
                for f in ("unnoticed", "wrong", "right")
            ),
        )
    return made


def promise_table(rows: Sequence[Row]) -> Table:
    """What was predicted, and what came; of benign groups those that are to reach something."""
    made = Table(title="Predicted, and measured on images nobody had seen", box=SIMPLE_HEAD)
    for title in ("figure", "predicted", "measured", "to reach", ""):
        made.add_column(title)
    for row in rows:
        if "to_reach" not in row and row.get("group") != CLEAN:
            continue
        if "predicted_ms" in row:
            told = f"{row['predicted_ms']:.2f} ms", f"{row['measured_ms']:.2f} ms"
        else:
            told = f"{row['predicted']:.2%}", f"{row['value']:.2%} of {row['samples']}"
        group = f", {escape(str(row['group']))}" if "group" in row else ""
        reach = row.get("to_reach")
        made.add_row(
            f"{row['figure']}{group}",
            *told,
            "" if reach is None else str(reach),
            "" if reach is None else ("yes" if row["met"] else "[red]NO[/red]"),
        )
    return made


def comparison_table(rows: Sequence[Row]) -> Table:
    """The old policy beside the recommended one."""
    made = Table(
        title="The old policy and the recommended one, on what the search did not see",
        box=SIMPLE_HEAD,
    )
    for title in ("figure", "old", "recommended", "difference", "95 % interval"):
        made.add_column(title, justify="left" if title == "figure" else "right")
    for row in rows:
        interval = ""
        if "difference_low" in row:
            interval = f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}"
        made.add_row(
            escape(str(row["figure"])),
            f"{row['old']:.4f}",
            f"{row['new']:.4f}",
            f"{row['difference']:+.4f}",
            interval,
        )
    return made


def anchor_rows(measured: Mapping[Anchor, Cost], requests: int) -> list[Row]:
    """What was measured to predict from."""
    return [
        {
            "measured": anchor.name,
            "requests": requests,
            "p50_ms": round(float(cost[0, len(cost[0]) // 2]), 3),
            "p99_ms": round(float(cost[0, int(0.99 * len(cost[0]))]), 3),
            "cpu_ms": round(float(cost[1, 0]), 3),
        }
        for anchor, cost in measured.items()
    ]
