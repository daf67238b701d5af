"""Where a defence ends: published breaks, what an evaluation missed, and what nobody looked at."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence

from detectors import Detector
from proxy.config import Config, Model
from purifiers import Purifier
from tuning.evaluate.conclusion import Findings, interval
from tuning.evaluate.sizes import THREATS
from tuning.evaluate.titles import titled
from tuning.page.rows import Row, number

_BREAK = re.compile(r"Known adaptive break: (.+?)\.?$")
_UNSEEN = re.compile(r"(?:Does not see|Blind to) (.+?)\.(?: |$)")
_MISSED = 0.5
"""An attack of which less is caught is listed as missed."""

Part = Detector | Purifier


def breaks(parts: Sequence[Part]) -> list[dict[str, str]]:
    """For each part what its own documentation says it does not see, and what breaks it."""
    rows = []
    for part in parts:
        text = inspect.cleandoc(type(part).__doc__ or "")
        paragraphs = [_one_line(paragraph) for paragraph in text.split("\n\n")]
        known = next((m for p in paragraphs if (m := _BREAK.search(p))), None)
        unseen = next((m for p in paragraphs if (m := _UNSEEN.search(p))), None)
        rows.append(
            {
                "part": part.name,
                "does not see": unseen[1] if unseen else "its author does not say",
                "published break": known[1]
                if known
                else "its author names none, which does not mean that there is none",
            }
        )
    return rows


def _one_line(text: str) -> str:
    return " ".join(text.split())


def missed(findings: Findings) -> list[str]:
    """What the evaluation says the defence does not do, in words; the worst first."""
    found = [
        f"{titled(str(row.get('name')))} ({row.get('threat')}): {interval(row, 'tpr')} caught"
        for row in sorted(findings.attacks, key=lambda row: _known(row, "tpr"))
        if number(row, "tpr") < _MISSED
    ]
    knowing = findings.knowing()
    if knowing is not None:
        found.append(
            f"an attacker who knows all gets a wrong answer served for "
            f"{interval(knowing, 'strongest')} of images within {knowing.get('eps_255')}/255 "
            f"(undefended {interval(knowing, 'undefended_strongest')})"
        )
    found += [f"worse than no defence: {text}" for text in findings.harm()]
    found += [
        f"{titled(str(row.get('name')))}, {role}: {interval(row, 'fpr')} flagged"
        for kind, role in _ROLES.items()
        for row in findings.kind(kind)
        if number(row, "fpr_low") > findings.wanted
    ]
    told = {str(row.get("threat")) for row in findings.rows if not row.get("skipped")}
    found += [f"not measured: {threat} attackers" for threat in THREATS if threat not in told]
    tuned = [titled(str(row.get("name"))) for row in findings.attacks if row.get("tuned_on")]
    if tuned:
        found.append(
            f"some part learned from attacks like {', '.join(tuned)}: how much of these is caught "
            "says little about other attacks"
        )
    return found


_ROLES = {
    "benign": "benign images",
    "unseen": "benign images of a kind never calibrated on",
    "ood": "images of no class",
}


def _known(row: Row, figure: str) -> float:
    value = number(row, figure)
    return math.inf if math.isnan(value) else value


def uncovered(config: Config, model: Model) -> list[str]:
    """What passes this defence by its configuration, or by what it is."""
    checks = {
        "mode is observe: suspicious requests are recorded, nothing is done about them": (
            model.mode == "observe"
        ),
        "action is flag: suspicious requests are answered like all others": (
            model.mode == "enforce" and model.action == "flag"
        ),
        "on_failure is open: what cannot be judged in time is passed, and counted": (
            model.on_failure == "open"
        ),
        "annotate is on: callers see the verdict, which helps a search": model.annotate,
        "inputs that are not inspected: "
        + ", ".join(i.name or "the other one" for i in model.inputs if not i.inspect): any(
            not i.inspect for i in model.inputs
        ),
        "searches by many queries: the detector `history` is not configured": not model.remembers,
        "inputs in shared memory pass unseen (shared_memory: passthrough)": (
            config.shared_memory == "passthrough"
        ),
        "NaN and infinities pass (non_finite: pass)": model.non_finite == "pass",
        "models that are not listed pass unscored (unlisted_models: pass)": (
            config.unlisted_models == "pass"
        ),
        f"inputs of kind {model.kind}: `breakwater evaluate` attacks images only": (
            model.kind != "image"
        ),
    }
    return [text for text, holds in checks.items() if holds] + [
        "streams and sequences are scored one request at a time; the evaluation sends single ones",
        "poisoned training data, stolen or swapped model files, and theft of the model by queries",
        "objects changed in the real world, unless their picture is unlike benign ones",
        "inputs that are wrong without being manipulated: the model's own errors",
        "whoever reaches the model server without passing the proxy",
    ]
