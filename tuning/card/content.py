"""What the card says, section by section."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from proxy.config import Model
from tuning.card import background
from tuning.card.blocks import Block, Facts, Grid, Items, Sections, Text
from tuning.card.gaps import breaks, missed, uncovered
from tuning.card.state import State, doubts
from tuning.evaluate import threats
from tuning.evaluate.conclusion import Findings, interval, percent, sentences
from tuning.evaluate.titles import TUNED, titled
from tuning.page.rows import Row, number

_NOTHING = (
    "Nothing was measured: no evaluation was given, so how much of any attack this defence catches "
    "is not known. `breakwater evaluate` measures it; give its report with --report."
)


def content(state: State) -> Sections:
    """The sections of a card."""
    findings = state.findings
    return {
        "What is defended": _defended(state),
        "What makes this card doubtful": _doubtful(state),
        "Against what": _against(findings),
        "What was found": _found(findings),
        "Thresholds": _thresholds(state),
        "Known gaps": _gaps(state, findings),
        "Measured how": background.measured(state),
        "Benign data": background.data(state),
        "What is stored, and for how long": background.stored(state.config, state.model),
        "Whom to ask": background.ask(),
    }


def _defended(state: State) -> Sequence[Block]:
    model = state.model
    looked_at = next((i for i in model.inputs if i.inspect), None)
    version = "not known: nothing is calibrated"
    if state.artifact is not None:
        version = state.artifact.provenance.model_version
    form = "as the model server says"
    if looked_at is not None and looked_at.layout is not None:
        form = str(looked_at.layout)
    parts = [
        {"part": part.key if hasattr(part, "key") else part.name, "what it is": _first_line(part)}
        for part in state.parts
    ]
    listed: Block = Grid(parts) if parts else Text("No detectors and no purifiers are configured.")
    return [
        Facts(
            [
                ("model", state.name),
                ("version calibrated for", version),
                ("input looked at", f"{model.kind}s, {form}"),
                ("answer", model.output.kind),
                ("policy", _policy(model)),
            ]
        ),
        listed,
    ]


def _first_line(part: object) -> str:
    return inspect.cleandoc(type(part).__doc__ or "").partition("\n")[0]


def _policy(model: Model) -> str:
    if not model.detectors:
        return "requests are validated and counted; nothing is scored"
    does = {
        "flag": "answered as usual and recorded",
        "purify": "answered from a purified copy",
        "block": "refused",
    }[model.action]
    done = f"suspicious samples are {does}" if model.mode == "enforce" else "nothing is acted on"
    unknown = "passes" if model.on_failure == "open" else "is refused"
    told = [
        f"mode {model.mode}: {done}",
        f"false alarms wanted: at most {percent(model.fpr)} of benign samples",
        f"what has no verdict within {model.budget_ms:g} ms {unknown}",
    ]
    if model.cascade is not None:
        told.append("cheap detectors come first, dear ones look at samples in doubt")
    if model.secrecy is not None:
        told.append("detectors are drawn by a secret")
    if model.aggregate is not None:
        told.append(f"purified answers come from {model.aggregate.copies} copies")
    if model.remembers:
        told.append(f"a series of queries like a search: {model.query_attacks.action}")
    told.append(_drift(model))
    return "; ".join(told)


def _drift(model: Model) -> str:
    if not model.drift.enabled:
        return "drift of the traffic is not watched"
    days, least = model.drift.false_alarm_days, model.drift.least_distance
    return (
        f"drift of the traffic is watched: shifts from {percent(least)} on, one false alarm in "
        f"{days:g} days, on an alarm: {model.drift.on_alarm}"
    )


def _doubtful(state: State) -> Sequence[Block]:
    told = doubts(state)
    return [Items(told)] if told else [Text("Nothing that is known without asking the server.")]


def _against(findings: Findings | None) -> Sequence[Block]:
    if findings is None:
        return [Text(_NOTHING)]
    rows = threats.table(findings.rows)
    return [Grid([{name: str(value) for name, value in row.items()} for row in rows])]


def _found(findings: Findings | None) -> Sequence[Block]:
    if findings is None:
        return [Text(_NOTHING)]
    blocks: list[Block] = [Text(" ".join(sentences(findings)))]
    if findings.attacks:
        blocks.append(Grid([_attack(row) for row in findings.attacks]))
    benign = findings.kind("benign", "unseen", "ood")
    if benign:
        blocks.append(Grid([_benign(row) for row in benign]))
    cost = [_latency(row) for row in findings.kind("latency")]
    return [*blocks, Grid(cost)] if cost else blocks


def _attack(row: Row) -> dict[str, str]:
    name = titled(str(row.get("name")))
    return {
        "attack": f"{name} {TUNED}" if row.get("tuned_on") else name,
        "threat model": str(row.get("threat")),
        "images": str(row.get("samples")),
        "caught (95 % interval)": interval(row, "tpr"),
        "answered rightly after purifying": interval(row, "robust_purify"),
    }


def _benign(row: Row) -> dict[str, str]:
    return {
        "images no attacker made": titled(str(row.get("name"))),
        "kind": {"benign": "calibrated on", "unseen": "never calibrated on"}.get(
            str(row.get("kind")), "of no class"
        ),
        "images": str(row.get("samples")),
        "flagged (95 % interval)": interval(row, "fpr"),
    }


def _latency(row: Row) -> dict[str, str]:
    return {
        "action": str(row.get("action")),
        "requests": f"{row.get('traffic')}, {row.get('samples')}",
        "added at the median": f"{number(row, 'added_p50_ms'):.3g} ms",
        "added at the 99th percentile": f"{number(row, 'added_p99_ms'):.3g} ms",
    }


def _thresholds(state: State) -> Sequence[Block]:
    rows = [
        {
            "evidence": level,
            "detectors": ", ".join(names),
            "threshold": f"{rule.threshold.value:.4g}",
            "wanted": percent(rule.threshold.fpr),
            "at most (95 %)": percent(rule.threshold.fpr_upper),
            "worst group": f"{rule.threshold.worst_group}, {rule.threshold.samples} samples",
        }
        for level, (names, rule) in state.levels.items()
    ]
    if not rows:
        return [Text(state.problem or "Nothing is scored, so there is no threshold.")]
    return [
        Text(
            "Share of benign samples flagged, held on each benign group that was calibrated on; "
            "copies among the samples make the bound too small."
        ),
        Grid(rows),
    ]


def _gaps(state: State, findings: Findings | None) -> Sequence[Block]:
    blocks: list[Block] = [Text("By the parts' own documentation, and as published:")]
    if state.parts:
        blocks.append(Grid(breaks(state.parts)))
    blocks.append(Text("By the evaluation:"))
    told = [_NOTHING] if findings is None else missed(findings)
    blocks.append(Items(told or ["nothing that it looked for was missed by half or more"]))
    blocks.append(Text("Not covered, by configuration or at all:"))
    return [*blocks, Items(uncovered(state.config, state.model))]
