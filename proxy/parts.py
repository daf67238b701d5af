"""A model's detectors and purifiers, built from its configuration."""

from __future__ import annotations

import detectors
import purifiers
from detectors import Detector
from proxy.config import Model
from proxy.errors import ConfigError
from proxy.kinds import check_detectors, check_purifiers


def build_detectors(model: Model) -> tuple[Detector, ...]:
    """The configured detectors, unfitted (raises ConfigError)."""
    try:
        parts = tuple(detectors.build(part.name, part.params) for part in model.detectors)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    check_detectors(model.kind, parts)
    return parts


def build_purifiers(model: Model) -> tuple[purifiers.Purifier, ...]:
    """The configured purifiers (raises ConfigError)."""
    try:
        parts = tuple(purifiers.build(part.name, part.params) for part in model.purifiers)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    check_purifiers(model.kind, parts)
    return parts
