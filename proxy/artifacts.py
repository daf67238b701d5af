"""A calibration on disk: thresholds and detector states, with where they came from.

A folder of two files: `calibration.json` (provenance, readable) and `calibration.safetensors`
(the numbers; its SHA-256 is in the JSON). Never pickle. What does not fit is refused at start.
Imports torch: load this module only when some model has detectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from detectors.calibration import Calibration
from detectors.drift_reference import Reference
from proxy import __version__, parts, weights
from proxy.config import Model
from proxy.errors import ConfigError
from proxy.files import write_whole
from proxy.lineage import Lineage

JSON_FILE = "calibration.json"
TENSOR_FILE = "calibration.safetensors"

_CALIBRATION = "calibration/"
_DETECTOR = "detector/"
_SAMPLES = "samples"
_DRIFT = "drift/"


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Provenance(_Stored):
    """Where a calibration came from."""

    model: str
    """Model name."""
    model_version: str
    """Version that answered during calibration, as the model server names it."""
    data_sha256: str
    """Digest of the benign data file."""
    samples: int
    """Benign samples used, before variations."""
    groups: tuple[str, ...]
    """Benign variations the threshold holds for, e.g. clean, noise, jpeg."""
    date: str
    """When, RFC 3339 in UTC."""
    breakwater: str = __version__
    """Version that wrote it."""
    defence: dict[str, Any]
    """What the numbers depend on, from the configuration: see `defence_of`."""
    weights: dict[str, str] = {}
    """Digests of the trained networks the detectors used, by name."""
    data: Lineage | None = None
    """What is known of the benign data file; None where it was not looked at."""
    group_data: dict[str, Lineage] = {}
    """The same for the files of benign groups of one's own, by group."""
    live: dict[str, Any] | None = None
    """How live traffic was screened, where the group `live` was made of it."""


class _File(_Stored):
    format: Literal[2]
    provenance: Provenance
    tensors_sha256: str
    calibration: dict[str, Any]
    drift: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded calibration, its tensors on the device."""

    calibration: Calibration
    states: Mapping[str, Mapping[str, Tensor]]
    """What each configured detector learned, for `Detector.load_state`; empty where nothing."""
    provenance: Provenance
    networks: Mapping[str, weights.Trained] = field(default_factory=dict)
    """Trained networks of the configured parts, by name, for `weights.give`."""
    digest: str = ""
    """SHA-256 of all that its scores depend on: `defence_of`, its numbers, its networks."""
    samples: Tensor | None = None
    """What tells the benign samples apart, (N,) int64, see `tuning.lineage.fingerprints`; None
    where nobody kept it."""
    reference: Reference | None = None
    """Inputs and classes of the benign samples, for `Reference.of_calibration`; None where nobody
    kept them."""


def defence_of(model: Model) -> dict[str, Any]:
    """Return the parts of a model's configuration that its calibration depends on.

    Fields at their default are left out, so that a new optional field makes nothing stale; the
    order of detectors does not matter.
    """
    inspected = next((i for i in model.inputs if i.inspect), None)
    return {
        "detectors": {
            name: json.loads(json.dumps(params))
            for name, params in sorted(parts.detector_params(model).items())
        },
        "inputs": inspected.model_dump(mode="json", exclude_defaults=True) if inspected else {},
        "output": model.output.model_dump(mode="json", exclude_defaults=True),
    }


def save(
    folder: Path,
    *,
    calibration: Calibration,
    states: Mapping[str, Mapping[str, Tensor]],
    provenance: Provenance,
    samples: Tensor | None = None,
    reference: Reference | None = None,
) -> None:
    """Write a calibration, each file whole or not at all. The folder is made if missing.

    Args:
        samples: see `Artifact.samples`.
        reference: see `Artifact.reference`.
    """
    tensors = {_CALIBRATION + key: value for key, value in calibration.tensors().items()}
    if samples is not None:
        tensors[_SAMPLES] = samples
    if reference is not None:
        tensors |= {_DRIFT + key: value for key, value in reference.tensors().items()}
    for detector, state in states.items():
        tensors |= {f"{_DETECTOR}{detector}/{key}": value for key, value in state.items()}
    blob = save_tensors({key: t.detach().cpu().contiguous() for key, t in tensors.items()})
    file = _File(
        format=2,
        provenance=provenance,
        tensors_sha256=hashlib.sha256(blob).hexdigest(),
        calibration=calibration.meta(),
        drift=None if reference is None else reference.meta(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / TENSOR_FILE, blob)
    write_whole(folder / JSON_FILE, (file.model_dump_json(indent=2) + "\n").encode())


def load(folder: Path, model_name: str, model_cfg: Model, device: torch.device) -> Artifact:
    """Read a calibration and check that it belongs to this model, configured as it is now.

    Raises:
        ConfigError: missing, damaged, of another model, or stale; or the weights of a network
            are; the text says what to do.
    """
    remedy = (
        f"Run `breakwater calibrate --config FILE --model {model_name} "
        f"--data FILE.npz --out {folder}`."
    )
    try:
        file = _read(folder)
        _check(file.provenance, model_name, model_cfg)
        blob = (folder / TENSOR_FILE).read_bytes()
        if hashlib.sha256(blob).hexdigest() != file.tensors_sha256:
            raise ConfigError(f"{TENSOR_FILE} is not the file that {JSON_FILE} describes")
        artifact = _build(file, blob, model_cfg, device)
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise ConfigError(f"calibration {folder}: {missing} is missing. {remedy}") from error
    except (OSError, ConfigError) as error:
        raise ConfigError(f"calibration {folder}: {error}. {remedy}") from error
    scoring = parts.build_detectors(model_cfg)
    every: list[weights.Part] = [*scoring, *parts.build_purifiers(model_cfg)]
    networks = weights.load(folder, model_name, every, device)
    changed = weights.changed(file.provenance.weights, weights.digests(scoring, networks))
    if changed:
        raise ConfigError(
            f"calibration {folder}: the weights of {', '.join(changed)} are not those it was made "
            f"with. {remedy}"
        )
    return replace(artifact, networks=networks)


def _read(folder: Path) -> _File:
    try:
        return _File.model_validate_json((folder / JSON_FILE).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{JSON_FILE} is damaged at {where}: {first['msg']}") from error


def _check(provenance: Provenance, model_name: str, model_cfg: Model) -> None:
    if provenance.model != model_name:
        raise ConfigError(f"it was made for model {provenance.model!r}, not {model_name!r}")
    for part, now in defence_of(model_cfg).items():
        then = provenance.defence.get(part)
        if then != now:
            raise ConfigError(
                f"it is stale: `{part}` of model {model_name} was {json.dumps(then)} when "
                f"calibrated on {provenance.date} and is {json.dumps(now)} now"
            )


def _build(file: _File, blob: bytes, model_cfg: Model, device: torch.device) -> Artifact:
    try:
        tensors = load_tensors(blob)
        calibration = Calibration.from_tensors(
            _under(tensors, _CALIBRATION), file.calibration, device
        )
        stored = file.drift and Reference.from_tensors(_under(tensors, _DRIFT), file.drift)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{TENSOR_FILE} cannot be used: {error}") from error
    moved = {key: value.to(device) for key, value in tensors.items() if key.startswith(_DETECTOR)}
    return Artifact(
        calibration=calibration,
        states={d.name: _under(moved, f"{_DETECTOR}{d.name}/") for d in model_cfg.detectors},
        provenance=file.provenance,
        digest=_digest(file),
        samples=tensors.get(_SAMPLES),
        reference=stored or None,
    )


def _digest(file: _File) -> str:
    facts = [file.provenance.defence, file.tensors_sha256, file.provenance.weights]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
