"""Can a caller tell flagged requests from clean ones by their answers, in silent mode?

Usage: python -m loadtests.oracle [--json FILE] [--quick] [--only MODE]   (needs Triton's wheel)

A real Triton serves the demo's digits behind a sidecar that enforces. One client sends clean images
and images known to be flagged in random order and notes all that is not the model's own number:
status, text, metadata, the message's form, and time to a microsecond. Two distinguishers are judged
on it: the time alone, and a random forest over everything (cross-validated). 0.5 is guessing. With
`answer_quantum_ms` answers leave at multiples of it; without, purified answers take longer.
That both kinds were treated as they should be is checked in the sidecar's own counters.
"""

from __future__ import annotations

import itertools
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console

from loadtests import digits_scene
from loadtests.digits_scene import Digits
from loadtests.harness import Report, options, warn_if_busy
from loadtests.oracle.distinguisher import Auc, by_everything, by_latency
from loadtests.oracle.seen import PRINCIPAL, Caller, Seen
from proxy import configfile
from tuning import calibrate
from tuning.demo import policy
from tuning.demo.digits import MODEL
from tuning.demo.sidecar import Sidecar

EACH, EACH_QUICK = 600, 100
"""Answers of each kind."""
SEARCHES, STEPS = 20, 12
"""Of the principal that is to be in quarantine, at most."""
FIGURE = "AUC of a distinguisher"
GOAL = "<= 0.55"
USUAL, SEARCHER = "usual", "searcher"
"""Who sends clean images, and who those that are flagged, or is in quarantine."""
QUANTUM_MS = 60
_ACTIONS = re.compile(r'^breakwater_requests_total\{action="(\w+)",.*\} (\S+)$', re.MULTILINE)

Images = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to enforce in silence."""

    name: str
    acts: str
    """The action that flagged requests end in."""
    fields: dict[str, Any]


MODES = (
    Mode("flag, speculative", "flag", {"action": "flag", "dispatch": "speculative"}),
    Mode("flag, sequential", "flag", {"action": "flag", "dispatch": "sequential"}),
    Mode("purify, speculative", "purify", {"action": "purify", "max_waste": 1.0}),
    Mode("purify, sequential", "purify", {"action": "purify", "dispatch": "sequential"}),
    Mode(
        "decoy",
        "decoy",
        {
            "action": "flag",
            "detectors": [*policy.DETECTORS, {"name": "history"}],
            "query_attacks": {"action": "decoy", "quarantine_minutes": 60},
            "max_waste": 1.0,
        },
    ),
)


def main() -> int:
    """Measure every mode with and without a quantum; returns the exit status."""
    parser = options(__doc__)
    parser.add_argument("--only", choices=[mode.name for mode in MODES], help="one mode")
    parsed = parser.parse_args()
    warn_if_busy()
    report = Report("What answers tell of verdicts")
    each = EACH_QUICK if parsed.quick else EACH
    with tempfile.TemporaryDirectory() as folder, digits_scene.served(Path(folder)) as scene:
        for mode in (m for m in MODES if parsed.only in (None, m.name)):
            for quantum_ms in (0, QUANTUM_MS):
                clean, flagged = measure(scene, mode, quantum_ms, each)
                note(report, mode, quantum_ms, clean, flagged)
    return report.finish(parsed.json)


def measure(scene: Digits, mode: Mode, quantum_ms: int, each: int) -> tuple[list[Seen], list[Seen]]:
    """Answers to clean and to flagged requests, as many of each, asked in random order.

    Raises:
        RuntimeError: the sidecar's counters say that others were flagged than should be.
    """
    settle(scene, mode, quantum_ms)
    rng = np.random.default_rng(7)
    with scene.defended() as sidecar:
        caller = Caller(sidecar.address)
        plain, odd = images(scene, sidecar, mode, caller)
        for image in plain[:20]:
            caller.ask(image, USUAL)
        time.sleep(1)  # until they are counted
        before = actions(sidecar)
        seen: tuple[list[Seen], list[Seen]] = [], []
        for is_flagged in rng.permutation([False, True] * each):
            pool, name = (odd, SEARCHER) if is_flagged else (plain, USUAL)
            seen[int(is_flagged)].append(caller.ask(pool[rng.integers(len(pool))], name))
        after = settled(sidecar, sum(before.values()) + 2 * each)
        acted = {name: count - before.get(name, 0) for name, count in after.items()}
        caller.close()
    if acted.get(mode.acts) != each or acted.get("none") != each:
        raise RuntimeError(f"{mode.name}: {each} of each kind were expected, but: {acted}")
    return seen


def settle(scene: Digits, mode: Mode, quantum_ms: int) -> None:
    """Write the policy of a mode, and calibrate for it."""
    document = yaml.safe_load(scene.config.read_text())
    document["principal_header"] = PRINCIPAL
    model = policy.document("")["models"][MODEL]
    model |= {"annotate": False, "budget_ms": 2000, "answer_quantum_ms": quantum_ms, **mode.fields}
    model["calibration"] = f"calibration-{len(model['detectors'])}"
    document["models"] = {MODEL: model}
    scene.config.write_text(yaml.safe_dump(document, sort_keys=False))
    if not (scene.folder / model["calibration"]).exists():
        with (scene.folder / "calibrate.log").open("w") as log:
            calibrate.run(
                configfile.load(scene.config),
                MODEL,
                scene.folder / "benign.npz",
                console=Console(file=log),
            )


def images(
    scene: Digits, sidecar: Sidecar, mode: Mode, caller: Caller
) -> tuple[Sequence[Images], Sequence[Images]]:
    """Images that pass, and ones that do not; each sent alone, and the counters asked.

    Where a search is what is flagged, its images are as clean as the others'.
    """
    clean = [x for x in scene.kinds[0].x if acted_on(sidecar, caller, x) == "none"]
    if mode.acts == "decoy":
        quarantine(sidecar, caller, scene.kinds[0].x)
        return clean, clean
    return clean, [x for x in scene.kinds[-1].x if acted_on(sidecar, caller, x) == mode.acts]


def quarantine(sidecar: Sidecar, caller: Caller, images: Images) -> None:
    """Search for the boundary between two images, and the next two, until there is an alarm.

    Raises:
        RuntimeError: there was none.
    """
    for near, far in itertools.pairwise(images[:SEARCHES]):
        low, high = near, far
        for step in range(STEPS):
            middle = (low + high) / 2
            before = actions(sidecar)
            caller.ask(middle, SEARCHER)
            after = settled(sidecar, sum(before.values()) + 1)
            if after.get("decoy", 0) > before.get("decoy", 0):
                return
            low, high = (middle, high) if step % 3 else (low, middle)
    raise RuntimeError(f"{SEARCHES} searches of {STEPS} queries raised no alarm")


def acted_on(sidecar: Sidecar, caller: Caller, image: Images) -> str:
    """What the sidecar did with one image of somebody it has not met."""
    before = actions(sidecar)
    caller.ask(image, f"trial-{image.sum():.9f}")
    after = settled(sidecar, sum(before.values()) + 1)
    return next(name for name, count in after.items() if count != before.get(name, 0))


def settled(sidecar: Sidecar, count: int) -> dict[str, int]:
    """The same once so many requests have been counted, which is after they were answered.

    Raises:
        RuntimeError: they are not within a few seconds.
    """
    for _ in range(200):
        found = actions(sidecar)
        if sum(found.values()) >= count:
            return found
        time.sleep(0.02)
    raise RuntimeError(f"{count} requests should have been counted, not {sum(found.values())}")


def actions(sidecar: Sidecar) -> dict[str, int]:
    """Requests so far by what was done with them."""
    found: dict[str, int] = {}
    for name, count in _ACTIONS.findall(sidecar.metrics()):
        found[name] = found.get(name, 0) + int(float(count))
    return found


def note(
    report: Report, mode: Mode, quantum_ms: int, clean: list[Seen], flagged: list[Seen]
) -> None:
    """Put both distinguishers of one mode into the report."""
    told: dict[str, Auc] = {
        "time alone": by_latency(clean, flagged),
        "everything": by_everything(clean, flagged, seed=7),
    }
    for features, auc in told.items():
        where: dict[str, str | int | float] = {
            "mode": mode.name,
            "quantum_ms": quantum_ms,
            "features": features,
            "low": round(auc.low, 3),
            "high": round(auc.high, 3),
            "answers": len(clean) + len(flagged),
            "clean_ms": round(_median_ms(clean), 2),
            "flagged_ms": round(_median_ms(flagged), 2),
            "forms": len({seen.form for seen in clean + flagged}),
        }
        if quantum_ms or mode.acts == "flag":
            report.figure(FIGURE, auc.value, GOAL, **where)
        else:  # two calls to the model take longer than one: what the quantum is for
            report.add(figure=FIGURE, value=round(auc.value, 3), **where)


def _median_ms(answers: Sequence[Seen]) -> float:
    return 1e3 * float(np.median([seen.seconds for seen in answers]))


if __name__ == "__main__":
    sys.exit(main())
