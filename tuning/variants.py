"""The configured defence of one model and those that differ from it where it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from detectors.base import Need
from proxy import parts
from proxy.config import Cascade, Config, Model
from proxy.errors import ConfigError
from tuning.narrow import Whole

PASS_THROUGH = "pass-through"  # noqa: S105 (no password)
_FREE_PORT = "127.0.0.1:0"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the sidecar."""

    name: str
    model: Model | None
    """None: no defence at all."""
    strength: int
    """How much it protects: 0 nothing, 1 it sees and does not act, 2 it acts on what the input
    alone shows, 3 on all evidence where the input leaves doubt, 4 on all evidence always."""
    workers: int = 1

    def write(self, folder: Path, config: Config, whole: Whole) -> Path:
        """Write its configuration file, with free ports; returns the file.

        Args:
            whole: the model and the calibration this one's is narrowed from.

        The audit log goes to the folder, and the history is the process's own: what is measured
        leaves no trace where the real sidecar runs.
        """
        model = self.model
        if model is not None and model.calibration is not None:
            own = whole.write(folder / "calibration" / whole.name, model)
            model = model.model_copy(update={"calibration": own})
        history = config.history.model_copy(update={"shared": None})
        written = config.model_copy(
            update={
                "listen": _FREE_PORT,
                "admin": _FREE_PORT,
                "control": None,
                "unlisted_models": "pass",
                "history": history,
                "audit": config.audit.model_copy(update={"path": folder / "audit.jsonl"}),
                "models": {} if model is None else {whole.name: model},
            }
        )
        file = folder / "breakwater.yaml"
        document = written.model_dump(mode="json", exclude_defaults=True)
        # What was left out for being a default is one in the file too.
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        return file


def variants(model: Model) -> list[Variant]:
    """Pass-through first, then the defence in its modes, weaker and stronger.

    Raises:
        ConfigError: the model lists no detectors.
    """
    if not model.detectors:
        raise ConfigError("the model lists no detectors, so there is nothing to weigh against cost")
    return [Variant(PASS_THROUGH, None, 0), *_defended(model)]


def _defended(model: Model) -> Iterator[Variant]:
    full = model.model_copy(update={"cascade": None})
    cheap = _input_only(model)
    yield Variant("observe", _enforcing(full, mode="observe"), 1)
    if cheap is not None:
        yield Variant("enforce, input only", _enforcing(cheap), 2)
        cascade = model.cascade or Cascade()
        yield Variant("enforce, cascade", _enforcing(model, cascade=cascade), 3)
    yield Variant("enforce, sequential", _enforcing(full, dispatch="sequential"), 4)
    yield Variant("enforce", _enforcing(full), 4)
    yield Variant("enforce, 2 workers", _enforcing(full), 4, workers=2)


def _enforcing(model: Model, **changes: object) -> Model:
    return model.model_copy(update={"mode": "enforce", "dispatch": "speculative", **changes})


def _input_only(model: Model) -> Model | None:
    """The model with those of its detectors that never ask; None if that is all or none of them."""
    kept = {d.name for d in parts.build_detectors(model) if d.needs in (Need.INPUT, Need.HISTORY)}
    left = tuple(part for part in model.detectors if part.name in kept)
    if not left or len(left) == len(model.detectors):
        return None
    return model.model_copy(update={"detectors": left, "cascade": None})
