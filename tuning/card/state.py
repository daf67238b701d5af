"""What a card is made from: configuration, calibration and evaluation, as far as they are there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from detectors.rule import CalibrationError, Rule
from proxy import __version__, artifacts, parts
from proxy.config import Config, Model
from proxy.errors import ConfigError
from proxy.evaluation import MOST_BYTES, REPORT_FILE
from proxy.rules import evidence_levels
from tuning.card.gaps import Part
from tuning.evaluate.conclusion import Findings

_OLD_DAYS = 90


@dataclass(frozen=True)
class State:
    """What there is to tell of one model's defence."""

    name: str
    config: Config
    model: Model
    parts: tuple[Part, ...]
    """Detectors, then purifiers."""
    artifact: artifacts.Artifact | None
    calibration_sha256: str
    """Digest of `calibration.json`; empty where it cannot be used."""
    problem: str
    """Why there is no usable calibration; empty where there is one, or none is needed."""
    levels: Mapping[str, tuple[tuple[str, ...], Rule]]
    """Evidence level -> the detectors used there, and the rule."""
    report: Mapping[str, Any] | None

    @property
    def findings(self) -> Findings | None:
        """What the evaluation found; None where there is none."""
        return None if self.report is None else Findings.of(self.report)


def gather(config: Config, name: str, report: Path | None) -> State:
    """Read what there is; a calibration that cannot be used is told, not fatal.

    Args:
        report: `report.json` of an evaluation; the configured evaluation's by default.

    Raises:
        ConfigError: no such model, parts that cannot be built, or a report that cannot be used.
    """
    model = config.models.get(name)
    if model is None:
        known = ", ".join(config.models) or "none"
        raise ConfigError(f"no model {name!r} in the configuration (there: {known})")
    scoring = parts.build_detectors(model)
    artifact, problem, sha256, levels = None, "", "", {}
    if scoring:
        try:
            assert model.calibration is not None  # noqa: S101 (detectors need one: config)
            artifact = artifacts.load(model.calibration, name, model, torch.device("cpu"))
            content = (model.calibration / artifacts.JSON_FILE).read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            levels = {
                level: (names, artifact.calibration.rule([names], model.fpr))
                for level, names in evidence_levels(scoring).items()
            }
        except (ConfigError, CalibrationError) as error:
            problem = str(error)
    if report is None and model.evaluation is not None:
        report = model.evaluation / REPORT_FILE
    return State(
        name=name,
        config=config,
        model=model,
        parts=(*scoring, *parts.build_purifiers(model)),
        artifact=artifact,
        calibration_sha256=sha256,
        problem=problem,
        levels=levels,
        report=None if report is None else _report(report, name),
    )


def _report(path: Path, name: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path} has over {MOST_BYTES} bytes: it is no report")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; `breakwater evaluate --model {name} --out DIR` "
            "writes DIR/report.json"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise ConfigError(f"{path} is not a report of `breakwater evaluate`: it has no rows")
    if found.get("model") != name:
        raise ConfigError(f"{path} is of model {found.get('model')!r}, not {name!r}")
    return found


def doubts(state: State, now: datetime | None = None) -> list[str]:
    """What makes the card doubtful: parts of different age, of different data, or too alike.

    Args:
        now: the time to judge age by; the clock's by default.
    """
    found = [f"the calibration cannot be used: {state.problem}"] if state.problem else []
    if state.artifact is not None:
        found += _of_calibration(state, now or datetime.now(UTC))
    if state.report is not None:
        found += _of_report(state)
    return found


def _of_calibration(state: State, now: datetime) -> list[str]:
    assert state.artifact is not None  # noqa: S101 (the caller looked)
    provenance = state.artifact.provenance
    found = []
    days = _days(provenance.date, now)
    if days is not None and days > _OLD_DAYS:
        found.append(f"the calibration is {days} days old: what was benign then may not be now")
    if provenance.breakwater != __version__:
        found.append(f"it was calibrated by breakwater {provenance.breakwater}, not {__version__}")
    if provenance.data is None:
        found.append(
            "the calibration says nothing of its data but the digest: it was made before lineage "
            "was kept; calibrate again"
        )
    return found


def _of_report(state: State) -> list[str]:
    assert state.report is not None  # noqa: S101 (the caller looked)
    report, found = state.report, []
    notes = report.get("notes")
    found += [str(note) for note in notes] if isinstance(notes, list) else []
    if report.get("quick"):
        found.append("the evaluation was a quick one: few images, wide intervals")
    if report.get("breakwater") not in (None, __version__):
        found.append(f"it was evaluated by breakwater {report['breakwater']}, not {__version__}")
    if state.artifact is None:
        return found
    provenance = state.artifact.provenance
    served = report.get("versions")
    if isinstance(served, list) and provenance.model_version != ",".join(map(str, served)):
        found.append(
            f"the calibration is of model version {provenance.model_version}, the evaluation of "
            f"{', '.join(map(str, served))}"
        )
    if report.get("defence") not in (None, state.artifact.digest):
        found.append(
            "the evaluation was of another calibration or configuration than this one: its figures "
            "do not hold for what is described here; evaluate again"
        )
    policy = report.get("policy")
    if isinstance(policy, Mapping) and policy.get("fpr") not in (None, state.model.fpr):
        found.append(
            f"the evaluation was at a false-positive rate of {policy['fpr']}, not {state.model.fpr}"
        )
    return found


def _days(date: str, now: datetime) -> int | None:
    try:
        then = datetime.fromisoformat(date)
    except ValueError:
        return None
    return (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).days
