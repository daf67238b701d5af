"""A calibration narrowed to some of its detectors: it holds each detector's scores by itself."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from detectors.calibration import Calibration
from proxy import artifacts, weights
from proxy.config import Model
from proxy.errors import ConfigError
from proxy.parts import build_detectors, build_purifiers


@dataclass(frozen=True, slots=True)
class Whole:
    """The calibration that others are narrowed from, of one model."""

    folder: Path
    name: str
    """Of the model."""
    model: Model
    """Configured with all detectors the calibration is to have."""

    def write(self, out: Path, model: Model) -> Path:
        """Write the calibration of the same model with fewer detectors; returns the folder.

        Args:
            out: is made; what another calibration left there is replaced.
            model: its detectors are among the whole's, built alike.

        Raises:
            ConfigError: the whole cannot be read, lacks one of the detectors, or has it with other
                parameters.
        """
        found = artifacts.load(self.folder, self.name, self.model, torch.device("cpu"))
        kept = [part.name for part in model.detectors]
        self._check(model)
        scoring = build_detectors(model)
        used = weights.users([*scoring, *build_purifiers(model)])
        digests = weights.digests(scoring, found.networks)
        provenance = found.provenance.model_copy(
            update={"defence": artifacts.defence_of(model), "weights": digests}
        )
        artifacts.save(
            out,
            calibration=narrowed(found.calibration, kept),
            states={name: found.states[name] for name in kept},
            provenance=provenance,
            samples=found.samples,
            reference=found.reference,
        )
        if used and self.folder.resolve() != out.resolve():
            try:
                shutil.copytree(
                    self.folder / weights.FOLDER, out / weights.FOLDER, dirs_exist_ok=True
                )
            except OSError as error:
                raise ConfigError(f"{self.folder / weights.FOLDER}: {error}") from error
        return out

    def _check(self, model: Model) -> None:
        there = artifacts.defence_of(self.model)["detectors"]
        for name, params in artifacts.defence_of(model)["detectors"].items():
            if name not in there:
                raise ConfigError(f"calibration {self.folder}: it has no detector {name}")
            if there[name] != params:
                raise ConfigError(
                    f"calibration {self.folder}: {name} was calibrated with {there[name]}, not "
                    f"{params}"
                )


def narrowed(calibration: Calibration, names: list[str]) -> Calibration:
    """The same calibration without the other detectors' scores.

    Learned scores stay where all of their detectors do.
    """
    columns = [calibration.names.index(name) for name in names]
    meta = calibration.meta()
    learners = [i for i, each in enumerate(calibration.learners) if set(each.names) <= set(names)]
    tensors = {
        key: scores[:, columns]
        for key, scores in calibration.tensors().items()
        if not key.startswith("learner")
    }
    tensors |= {f"learner{k}": calibration.learners[i].weights for k, i in enumerate(learners)}
    meta |= {"detectors": names, "learners": [meta["learners"][i] for i in learners]}
    return Calibration.from_tensors(tensors, meta)
