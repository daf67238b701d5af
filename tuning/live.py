"""`breakwater calibrate --live`: a calibration from scores a sidecar has kept of its traffic."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from proxy import artifacts, parts, weights
from proxy.config import Config, Model
from proxy.control.client import Client
from proxy.errors import ConfigError
from proxy.pb.breakwater.v1 import control_pb2 as pb
from proxy.rules import evidence_levels
from tuning.live_calibration import Outcome, Wanted, build
from tuning.live_report import report
from tuning.live_scores import Traffic, read
from tuning.sufficiency import TooFew

MOST_BYTES = 256 << 20
"""Of one file of recorded scores; 20,000 samples of 8 detectors are 5 MB."""

Snapshots = Sequence[Mapping[str, Any]]


def run(
    config: Config,
    name: str,
    snapshots: Snapshots,
    wanted: Wanted,
    *,
    out: Path | None,
    console: Console | None = None,
) -> int:
    """Make a calibration from recorded scores and write it; returns the exit status.

    Args:
        snapshots: one of each replica, see `read_file`.
        wanted: with the rate to hold.
        out: folder to write to; not the one in use, so that one can go back.

    Raises:
        ConfigError: it cannot be made of these; says what to do.
    """
    console = console or Console(stderr=True)
    model, previous = _previous(config, name, out)
    assert model.calibration is not None  # noqa: S101 (_previous loaded it)
    assert out is not None  # noqa: S101 (and checked this)
    _check(snapshots, name, previous.digest)
    traffic = read(snapshots, previous.calibration.names)
    _warn_of_cascade(console, model, traffic)
    levels = evidence_levels(parts.build_detectors(model))
    try:
        outcome = build(previous.calibration, traffic, levels, wanted)
    except TooFew as error:
        raise ConfigError(f"{error}{_wait(error, snapshots)}") from error
    report(console, outcome, wanted.fpr, len(traffic))
    facts = _facts(snapshots, outcome, wanted, model.calibration)
    _write(out, model.calibration, previous, outcome, facts, wanted)
    console.print(f"written to {out}; the configuration names {model.calibration} until you change")
    console.print(f"models.{name}.calibration (see the change before: `breakwater diff`)")
    return 0


def rate(config: Config, name: str) -> float:
    """The false-positive rate that the configuration wants of a model.

    Raises:
        ConfigError: there is no such model.
    """
    return _model(config, name).fpr


def fetch(client: Client, name: str) -> Mapping[str, Any]:
    """The scores a sidecar has recorded of a model, asked for at its control port.

    Raises:
        CallError: no answer, or an error.
        ConfigError: the answer is no JSON object.
    """
    answer = client.call("GetScores", pb.GetScoresRequest(model=name))
    return _parsed(answer.text, "the control port")


def read_file(path: Path) -> Mapping[str, Any]:
    """The snapshot in a file, as `/records/scores` answers it.

    Raises:
        ConfigError: it cannot be read, is too large or holds no JSON object.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path} has more than {MOST_BYTES >> 20} MiB")
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} holds no recorded scores: {error}") from error
    return _parsed(text, str(path))


def _parsed(text: str | bytes, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} holds no recorded scores: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{where} holds no recorded scores: it is not a JSON object")
    return found


def _model(config: Config, name: str) -> Model:
    model = config.models.get(name)
    if model is None:
        known = ", ".join(config.models) or "none"
        raise ConfigError(f"no model {name!r} in the configuration (there: {known})")
    return model


def _previous(config: Config, name: str, out: Path | None) -> tuple[Model, artifacts.Artifact]:
    model = _model(config, name)
    if not model.detectors or model.calibration is None:
        raise ConfigError(
            f"models.{name} has no calibration to start from: detectors are fitted on data "
            "(`breakwater calibrate --data`), thresholds can follow from live traffic then"
        )
    if out is None or out.resolve() == model.calibration.resolve():
        raise ConfigError(
            f"say where to write with --out DIR, another folder than {model.calibration}: the "
            "calibration in use stays, to go back to"
        )
    return model, artifacts.load(model.calibration, name, model, torch.device("cpu"))


def _check(snapshots: Snapshots, name: str, defence: str) -> None:
    if not snapshots:
        raise ConfigError("say where the scores are: --control HOST:PORT, or --records FILE.json")
    for snapshot in snapshots:
        if snapshot.get("model") != name:
            raise ConfigError(f"the recorded scores are not of model {name!r}")
        if snapshot.get("seen") == 0:
            raise ConfigError(
                f"nothing is recorded of model {name} yet: send traffic through the sidecar, with "
                "its records on"
            )
        if snapshot.get("defence") != defence:
            raise ConfigError(
                "the recorded scores are of another defence: detectors, inputs or calibration "
                "have changed since, or are others in this configuration; give the configuration "
                "that is being served, or wait for new scores"
            )


def _warn_of_cascade(console: Console, model: Model, traffic: Traffic) -> None:
    partial = int(np.isnan(traffic.scores).any(axis=1).sum())
    if model.cascade is not None and partial:
        console.print(
            f"{partial} of {len(traffic)} samples lack some detector's score, since the cascade "
            "stopped before it: what is left is biased towards the unusual. Take `cascade` out of "
            "the configuration while observing"
        )


def _wait(error: TooFew, snapshots: Snapshots) -> str:
    """How long it takes at the pace so far; nothing where there is none."""
    starts = [s.get("since_s") for s in snapshots]
    known = [float(s) for s in starts if isinstance(s, int | float) and 0 < s < time.time()]
    if not error.left or not known:
        return ". Go on observing"
    wait_s = (time.time() - min(known)) * (error.needed - error.left) / error.left
    told = f"{wait_s / 60:.0f} minutes" if wait_s < 7200 else f"{wait_s / 3600:.0f} hours"
    return f". At the pace so far that takes about {told}"


def _facts(
    snapshots: Snapshots, outcome: Outcome, wanted: Wanted, previous: Path
) -> dict[str, Any]:
    def numbers(name: str) -> list[float]:
        return [value for s in snapshots if isinstance(value := s.get(name), int | float)]

    return {
        "replicas": len(snapshots),
        "since_s": min(numbers("since_s"), default=None),
        "until_s": round(time.time()),
        "seen": sum(numbers("seen")),
        "steps": [asdict(step) for step in outcome.steps],
        "trimmed": outcome.trimmed,
        "excesses": [asdict(excess) for excess in outcome.found],
        "wanted": asdict(wanted),
        "live_upper": {level.name: level.live_upper_untrimmed for level in outcome.levels},
        "previous_sha256": _sha256((previous / artifacts.TENSOR_FILE).read_bytes()),
    }


def _write(
    out: Path,
    source: Path,
    previous: artifacts.Artifact,
    outcome: Outcome,
    facts: dict[str, Any],
    wanted: Wanted,
) -> None:
    then = previous.provenance
    scored = _sha256(np.ascontiguousarray(outcome.scores).tobytes())
    networks = source / weights.FOLDER
    if networks.is_dir():
        shutil.copytree(networks, out / weights.FOLDER, dirs_exist_ok=True)
    artifacts.save(
        out,
        calibration=outcome.calibration,
        states=previous.states,
        samples=previous.samples,
        provenance=then.model_copy(
            update={
                "data_sha256": f"{then.data_sha256} {scored}",
                "samples": len(outcome.scores) + (0 if wanted.replace else then.samples),
                "groups": tuple(outcome.calibration.groups),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "live": facts,
            }
        ),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
