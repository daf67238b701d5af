"""The folder that `breakwater evaluate` writes: a report, and the scores of every sample.

`report.json` is for people and for `breakwater card`; `scores.safetensors` lets other thresholds,
detectors and cascades be judged without another attack. Never pickle. Knows files and arrays only,
so that whoever shows an evaluation need not load torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from proxy.errors import ConfigError

REPORT_FILE = "report.json"
SCORES_FILE = "scores.safetensors"

BENIGN = "benign"
"""Role: fresh images of the kinds the calibration rests on."""
UNSEEN = "unseen"
"""Role: benign kinds that were never calibrated on."""
OOD = "ood"
"""Role: images of another kind than the model's."""
ATTACK = "attack"
"""Role: attacks that succeeded on the undefended model."""
ROLES = (BENIGN, UNSEEN, OOD, ATTACK)

SCORES, RIGHT, FUSED = "scores", "right", "fused"
"""What there is of one kind: see `Kind`."""
NO_PURIFIER = "none"
"""The first of the ways an answer can be served."""

MOST_BYTES = 256 * 1024 * 1024
"""Largest file that is read: some ten million scores."""
_MOST_KINDS = 1000
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]{1,100}")
"""No character that a terminal would act on."""

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.uint8]


def key(role: str, name: str, part: str) -> str:
    """The name of a tensor in the file of scores, e.g. `attack/pgd/fused`."""
    return f"{role}/{name}/{part}"


@dataclass(frozen=True, slots=True)
class Kind:
    """The samples of one attack, or of one benign kind."""

    role: str
    """One of `ROLES`."""
    name: str
    scores: Floats
    """(N, D) float32, finite, a column for each of `Evaluation.detectors`."""
    fused: Floats | None = None
    """(N,) float32 under the policy evaluated; NaN where it had none."""
    right: Flags | None = None
    """(N, W) 0 or 1: whether the answer served is right, by each of `Evaluation.ways`."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of one model's defence."""

    detectors: tuple[str, ...]
    """Names of the columns of scores."""
    kinds: tuple[Kind, ...]
    ways: tuple[str, ...] = (NO_PURIFIER,)
    """How answers were served: `none`, then each chain of purifiers."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """model, date, defence, threats {attack: threat}, trained_on {attack: bool}, tried {attack:
    how many}, queries, seeds."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """The whole of `report.json`."""

    def of(self, role: str) -> dict[str, Kind]:
        """The kinds of one role, by name."""
        return {kind.name: kind for kind in self.kinds if kind.role == role}

    def threat(self, attack: str) -> str:
        """What the attacker knew, or an empty string where the evaluation does not say."""
        threats = self.about.get("threats")
        return str(threats.get(attack, "")) if isinstance(threats, Mapping) else ""


def dump(evaluation: Evaluation) -> bytes:
    """The content of `scores.safetensors`; `load` reads it back."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for kind in evaluation.kinds:
        parts = {SCORES: kind.scores, FUSED: kind.fused, RIGHT: kind.right}
        for part, array in parts.items():
            if array is not None:
                wanted = np.uint8 if part == RIGHT else np.float32
                arrays[key(kind.role, kind.name, part)] = np.ascontiguousarray(array, wanted)
    return save_arrays(arrays, metadata=metadata(evaluation))


def metadata(evaluation: Evaluation) -> dict[str, str]:
    """The metadata of `scores.safetensors`, for who writes its tensors some other way."""
    return {
        "detectors": json.dumps(list(evaluation.detectors)),
        "ways": json.dumps(list(evaluation.ways)),
        "about": json.dumps(dict(evaluation.about)),
    }


def load(folder: Path, model: str | None = None) -> Evaluation:
    """Read an evaluation and check that every number in it can be used.

    Args:
        model: the model it must be of; None: any.

    Raises:
        ConfigError: missing, damaged, or of another model; the text says what to do.
    """
    remedy = f"Run `breakwater evaluate --config FILE --model {model or 'NAME'} --out {folder}`."
    try:
        report = _report(_bytes(folder / REPORT_FILE))
        evaluation = _scores(_bytes(folder / SCORES_FILE), report)
        _check_model(evaluation, model)
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise ConfigError(f"evaluation {folder}: {missing} is missing. {remedy}") from error
    except (OSError, ConfigError) as error:
        raise ConfigError(f"evaluation {folder}: {error}. {remedy}") from error
    return evaluation


def _bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ConfigError(f"{path.name} has {size} bytes, more than {MOST_BYTES}")
    return path.read_bytes()


def _report(data: bytes) -> dict[str, Any]:
    try:
        report = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{REPORT_FILE} is not JSON: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("model"), str):
        raise ConfigError(f"{REPORT_FILE} names no model")
    rows = report.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{REPORT_FILE} has no list of rows")
    return report


def _scores(data: bytes, report: Mapping[str, Any]) -> Evaluation:
    try:
        arrays = load_arrays(data)
        meta = _metadata(data)
        names, ways = (_names(meta, each) for each in ("detectors", "ways"))
        about = json.loads(meta["about"])
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{SCORES_FILE} cannot be used: {error!r}") from error
    if not isinstance(about, dict):
        raise ConfigError(f"{SCORES_FILE}: `about` is not an object")
    if not names or ways[:1] != (NO_PURIFIER,):
        raise ConfigError(f"{SCORES_FILE}: needs detectors, and {NO_PURIFIER!r} as the first way")
    found: dict[tuple[str, str], dict[str, npt.NDArray[Any]]] = {}
    for name, array in arrays.items():
        role, _, rest = name.partition("/")
        kind, _, part = rest.rpartition("/")
        if role not in ROLES or part not in (SCORES, RIGHT, FUSED) or not _NAME.fullmatch(kind):
            raise ConfigError(f"{SCORES_FILE}: unknown tensor {name[:200]!r}")
        found.setdefault((role, kind), {})[part] = array
    if not 0 < len(found) <= _MOST_KINDS:
        raise ConfigError(f"{SCORES_FILE}: {len(found)} kinds of samples, not 1 to {_MOST_KINDS}")
    kinds = tuple(
        _kind(role, name, parts, len(names), len(ways)) for (role, name), parts in found.items()
    )
    return Evaluation(names, kinds, ways, about, report)


def _metadata(data: bytes) -> dict[str, str]:
    """What `load_arrays` leaves out: the file starts with its header's length, then the header."""
    length = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return found


def _names(meta: Mapping[str, str], what: str) -> tuple[str, ...]:
    names = json.loads(meta[what])
    if not isinstance(names, list) or not all(
        isinstance(name, str) and _NAME.fullmatch(name) for name in names
    ):
        raise ValueError(f"{what} is not a list of names")
    if len(set(names)) != len(names):
        raise ValueError(f"{what} has a name twice")
    return tuple(names)


def _kind(
    role: str, name: str, parts: Mapping[str, npt.NDArray[Any]], detectors: int, ways: int
) -> Kind:
    scores, fused, right = (parts.get(part) for part in (SCORES, FUSED, RIGHT))
    where = f"{SCORES_FILE}: {role} {name!r}"
    if scores is None:
        raise ConfigError(f"{where} has no scores")
    shapes: Sequence[tuple[npt.NDArray[Any] | None, tuple[int, ...], Any]] = (
        (scores, (len(scores) if scores.ndim else 0, detectors), np.float32),
        (fused, (len(scores) if scores.ndim else 0,), np.float32),
        (right, (len(scores) if scores.ndim else 0, ways), np.uint8),
    )
    for array, shape, dtype in shapes:
        if array is not None and (array.shape != shape or array.dtype != dtype):
            raise ConfigError(
                f"{where} has a tensor {array.shape} of {array.dtype}, not {shape} of "
                f"{np.dtype(dtype)}"
            )
    if not np.isfinite(scores).all():
        raise ConfigError(f"{where} has scores that are not finite")
    if right is not None and (right > 1).any():
        raise ConfigError(f"{where} has answers that are neither right nor wrong")
    return Kind(role, name, scores, fused, right)


def _check_model(evaluation: Evaluation, model: str | None) -> None:
    of = evaluation.report["model"]
    scored = evaluation.about.get("model", of)
    if scored != of:
        raise ConfigError(f"{REPORT_FILE} is of model {of!r}, {SCORES_FILE} of {scored!r}")
    if model is not None and of != model:
        raise ConfigError(f"it is of model {of!r}, not {model!r}")
