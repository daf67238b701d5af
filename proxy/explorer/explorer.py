"""The threshold explorer: recorded live scores and the last evaluation, under other policies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detectors.calibration import Calibration
from detectors.query_history import QueryHistory
from proxy import evaluation as evaluations
from proxy.config import Model
from proxy.errors import ConfigError
from proxy.evaluation import Evaluation, Kind
from proxy.explorer.candidate import Candidate
from proxy.explorer.sweep import Floats, Sweep, number, numbers

MOST_SWEEPS = 16
"""Policies whose fits are kept; each takes about a second to make anew."""
MOST_OF_A_KIND = 5_000
"""Samples of one attack or benign kind that are shown: the first, which are in no order."""

_LIVE = ("time_s", "verdict", "action", "chain", "label", "total_ms")


class Explorer:
    """Answers what a policy would have said; for any thread, one question at a time.

    Args:
        models: name -> configuration and calibration, of those that have detectors.
        digest: the digest of a model's defence in force, see `Artifact.digest`.
    """

    def __init__(
        self, models: Mapping[str, tuple[Model, Calibration]], digest: Callable[[str], str]
    ) -> None:
        self._models = models
        self._digest = digest
        self._sweeps: dict[tuple[str, str], Sweep] = {}
        self._evaluations: dict[Path, tuple[object, Evaluation | str]] = {}
        self._one_at_a_time = threading.Lock()

    def explore(
        self,
        name: str,
        candidate: Mapping[str, Any] | None,
        snapshot: Mapping[str, Any],
        purify_ms: Sequence[float],
    ) -> dict[str, Any]:
        """What a model's policy, and another one, say of everything there is; ready for JSON.

        Args:
            candidate: fields of `Candidate`; None for the policy in force alone.
            snapshot: the recorded scores, as `Records.scores` gives them.
            purify_ms: how long purifying took of late.

        Returns:
            model; current: the policy in force; the fields of its `Sweep.grid`; live: ids, fused,
            and the recorded columns, of the samples that this policy can judge, and of how many it
            cannot (`unknown`); evaluation: fused scores by attack and benign kind, or null;
            evaluation_problem: why it is null, or is not of the defence in force; purify_ms;
            candidate: null, or a policy with the same parts, whose live.fused is in the order of
            the ids above, null where unknown.

        Raises:
            ConfigError: the model has no detectors, or the candidate cannot be used.
        """
        if name not in self._models:
            raise ConfigError(f"model {name[:200]!r} has no detectors: there is nothing to explore")
        model, calibration = self._models[name]
        wanted = None if candidate is None else Candidate.read(candidate).applied(model)
        with self._one_at_a_time:
            current = self._sweep(name, model, calibration)
            other = None if wanted is None else self._sweep(name, wanted, calibration)
            found, problem = self._evaluation(name, model)
        another = _another(found, self._digest(name))
        columns = _columns(snapshot, current.detectors)
        fused = current.fused(columns)
        known = np.flatnonzero(np.isfinite(fused))
        answer = {
            "model": name,
            "current": current.policy(),
            **current.grid(),
            "live": {**_live(snapshot, known), "fused": numbers(fused[known])},
            "evaluation": _evaluated(found, current),
            "evaluation_problem": problem or _lacking(found, current) or another,
            "purify_ms": _quantiles(purify_ms),
            "candidate": None,
        }
        if other is not None:
            live = other.fused(columns)[known]
            unknown = int((~np.isfinite(live)).sum())
            answer["candidate"] = {
                **other.policy(),
                **other.grid(),
                "live": {"fused": numbers(live), "unknown": unknown},
                "evaluation": _evaluated(found, other),
                "evaluation_problem": problem or _lacking(found, other) or another,
            }
        return answer

    def _sweep(self, name: str, model: Model, calibration: Calibration) -> Sweep:
        key = (
            name,
            json.dumps(
                [model.fpr, [part.name for part in model.detectors], model.cascade],
                default=lambda cascade: cascade.model_dump(),
            ),
        )
        if key not in self._sweeps:
            while len(self._sweeps) >= MOST_SWEEPS:
                del self._sweeps[next(iter(self._sweeps))]
            self._sweeps[key] = Sweep(name, model, calibration)
        sweep = self._sweeps[key] = self._sweeps.pop(key)  # the latest used is the last to go
        return sweep.refreshed()

    def _evaluation(self, name: str, model: Model) -> tuple[Evaluation | None, str]:
        """The evaluation, or why there is none to show: the defence does not depend on it."""
        folder = model.evaluation
        if folder is None:
            return None, ""
        stamp = _stamp(folder)
        if folder not in self._evaluations or self._evaluations[folder][0] != stamp:
            found: Evaluation | str
            try:
                found = evaluations.load(folder, name)
            except ConfigError as error:
                found = str(error)
            self._evaluations[folder] = stamp, found
        found = self._evaluations[folder][1]
        return (None, found) if isinstance(found, str) else (found, "")


def _columns(snapshot: Mapping[str, Any], detectors: Sequence[str]) -> dict[str, Floats]:
    """Recorded raw scores, NaN where a detector did not look."""
    scores = snapshot["columns"]["scores"]
    count = len(snapshot["columns"]["id"])
    none = [None] * count
    return {name: np.array(scores.get(name, none), np.float32) for name in detectors}


def _live(snapshot: Mapping[str, Any], known: np.ndarray[Any, Any]) -> dict[str, Any]:
    columns, rows = snapshot["columns"], known.tolist()
    return {
        "ids": [columns["id"][row] for row in rows],
        **{name: [columns[name][row] for row in rows] for name in _LIVE},
        "seen": snapshot["seen"],
        "kept": snapshot["kept"],
        "unknown": len(columns["id"]) - len(rows),
    }


def _lacking(found: Evaluation | None, sweep: Sweep) -> str:
    """What an evaluation lacks to be judged by a policy."""
    if found is None:
        return ""
    lacks = sorted({*sweep.detectors} - {*found.detectors, QueryHistory.name})
    if not lacks:
        return ""
    return f"the evaluation has no scores of {', '.join(lacks)}; run `breakwater evaluate` again"


def _another(found: Evaluation | None, digest: str) -> str:
    """That an evaluation is of another defence: its scores are not what this one would give."""
    if found is None or found.about.get("defence") == digest:
        return ""
    return (
        "the evaluation is of another calibration or other detectors than are in force, and what "
        "it shows may be wrong for these; run `breakwater evaluate` again"
    )


def _evaluated(found: Evaluation | None, sweep: Sweep) -> dict[str, Any] | None:
    if found is None or _lacking(found, sweep):
        return None
    trained = found.about.get("trained_on")
    trained = trained if isinstance(trained, Mapping) else {}
    roles = {role: found.of(role) for role in evaluations.ROLES}
    return {
        "date": found.report.get("date", ""),
        "seed": found.report.get("seed"),
        "attacks": {
            name: {
                "fused": numbers(_fused(found, kind, sweep)),
                "threat": found.threat(name),
                "tuned_on": bool(trained.get(name, False)),
                "right": None if kind.right is None else _shown(kind.right)[:, 0].tolist(),
            }
            for name, kind in roles.pop(evaluations.ATTACK).items()
        },
        **{
            role: {name: numbers(_fused(found, kind, sweep)) for name, kind in kinds.items()}
            for role, kinds in roles.items()
        },
    }


def _fused(found: Evaluation, kind: Kind, sweep: Sweep) -> Floats:
    scores = _shown(kind.scores)
    columns = {name: scores[:, i] for i, name in enumerate(found.detectors)}
    # 0 is what the history says of a query that follows on none.
    columns.setdefault(QueryHistory.name, np.zeros(len(scores), np.float32))
    return sweep.fused(columns)


def _shown(rows: Any) -> Any:
    return rows[:MOST_OF_A_KIND]


def _quantiles(milliseconds: Sequence[float]) -> dict[str, float | None]:
    if not milliseconds:
        return {"p50": None, "p99": None}
    p50, p99 = np.quantile(np.array(milliseconds, np.float64), [0.5, 0.99]).tolist()
    return {"p50": number(p50), "p99": number(p99)}


def _stamp(folder: Path) -> object:
    """What changes when the folder's files do."""
    try:
        stats = [
            (folder / name).stat() for name in (evaluations.REPORT_FILE, evaluations.SCORES_FILE)
        ]
    except OSError:
        return None
    return [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats]
