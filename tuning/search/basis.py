"""What a search rests on: a calibration, recorded scores of the same detectors, and fresh images.

Here it is an evaluation that is given, of the detectors that are configured; `palette` makes one of
more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from detectors.calibration import Calibration
from proxy import artifacts
from proxy import evaluation as evaluations
from proxy.adapt import ModelSpec
from proxy.config import Config, Model, Part
from proxy.errors import ConfigError
from proxy.evaluation import BENIGN, Evaluation, Kind
from proxy.parts import build_purifiers
from purifiers import Chain
from tuning import dataset
from tuning.batches import seeded
from tuning.model_client import ask_spec
from tuning.narrow import Whole
from tuning.search.recorded import CLEAN


@dataclass(frozen=True, slots=True)
class Given:
    """What the user gave."""

    config: Config
    name: str
    data: Path
    out: Path
    model_file: Path | None = None
    evaluation: Path | None = None
    detectors: tuple[str, ...] = ()
    """The palette; empty: the recorded ones, or `PALETTE` with those configured."""
    quick: bool = False
    seed: int = 0

    @property
    def model(self) -> Model:
        """The configured policy.

        Raises:
            ConfigError: there is none, or without detectors.
        """
        model = self.config.models.get(self.name)
        if model is None:
            known = ", ".join(self.config.models) or "none"
            raise ConfigError(f"no model {self.name!r} in the configuration (there: {known})")
        if not model.detectors:
            raise ConfigError(f"models.{self.name} lists no detectors: there is nothing to tune")
        return model


@dataclass(frozen=True, slots=True)
class Basis:
    """See the module."""

    whole: Whole
    """The calibration, and the configured policy with the palette for its detectors."""
    calibration: Calibration
    evaluation: Evaluation
    chains: Mapping[str, tuple[Part, ...]]
    """Way to answer -> its purifiers."""
    spec: ModelSpec
    fresh: Tensor
    """Images that no calibration is of, and no search sees, (N, ...)."""
    classes: int


def read(given: Given) -> Basis:
    """What the evaluation that is given says of the configured detectors.

    Raises:
        ConfigError: it, the calibration or the data are missing or do not belong together.
    """
    model = given.model
    assert given.evaluation is not None  # noqa: S101 (the caller looked)
    assert model.calibration is not None  # noqa: S101 (detectors demand one)
    found = evaluations.load(given.evaluation, given.name)
    names = [part.name for part in model.detectors]
    missing = [name for name in names if name not in found.detectors]
    if missing:
        raise ConfigError(
            f"evaluation {given.evaluation} has no scores of {', '.join(missing)}: evaluate again "
            "with this configuration, or leave out --evaluation"
        )
    artifact = artifacts.load(model.calibration, given.name, model, torch.device("cpu"))
    key = Chain(build_purifiers(model)).key[:100] if model.purifiers else ""
    data = dataset.load(given.data, model.kind)
    return Basis(
        Whole(model.calibration, given.name, model),
        artifact.calibration,
        _restricted(found, names),
        {key: model.purifiers} if key in found.ways else {},
        asyncio.run(ask_spec(given.config, given.name, model)),
        data.x[_fresh(found, data, given.seed)],
        2 if data.y is None else int(data.y.max()) + 1,
    )


def _restricted(found: Evaluation, names: Sequence[str]) -> Evaluation:
    columns = [found.detectors.index(name) for name in names]
    kinds = tuple(
        Kind(kind.role, kind.name, kind.scores[:, columns], kind.fused, kind.right)
        for kind in found.kinds
    )
    return replace(found, detectors=tuple(names), kinds=kinds)


def _fresh(found: Evaluation, data: dataset.Dataset, seed: int) -> Tensor:
    """Rows of the data that the evaluation recorded nothing benign of, (N,)."""
    told = found.report.get("data")
    of_this = isinstance(told, Mapping) and told.get("sha256") == data.sha256
    if not of_this:
        return torch.arange(len(data.x))
    clean = found.of(BENIGN).get(CLEAN)
    used = 0 if clean is None else len(clean.scores)
    rows = found.about.get("rows")
    if isinstance(rows, Mapping) and rows.get(f"{BENIGN}/{CLEAN}"):
        used = 1 + max(rows[f"{BENIGN}/{CLEAN}"])
    made_with = found.report.get("seed", seed)
    return torch.randperm(len(data.x), generator=seeded(made_with, "split"))[used:]
