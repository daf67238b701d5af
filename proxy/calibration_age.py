"""When a calibration was made, and whether that is too long ago."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime

from proxy.config import Model
from proxy.model_metrics import ModelMetrics

DAY_S = 86_400.0

log = logging.getLogger(__name__)


class CalibrationAge:
    """Says so, once, when a calibration has grown older than the policy allows.

    Args:
        name: the model's name.
        date: when the calibration was made, RFC 3339; what cannot be read counts as too old.
        model: its configuration.
        metrics: told the date and whether it is too old.
    """

    def __init__(self, name: str, date: str, model: Model, metrics: ModelMetrics) -> None:
        self._name = name
        self._most_days = model.calibration_max_age_days
        self._metrics = metrics
        self._made_s = made_s(date)
        self._is_stale: bool | None = None
        metrics.calibration(self._made_s)

    def look(self, now_s: float) -> None:
        """Publish whether it is too old now, in seconds since 1970."""
        days = (now_s - self._made_s) / DAY_S
        is_stale = not days <= self._most_days  # also where the date is NaN
        if is_stale == self._is_stale:
            return
        self._is_stale = is_stale
        self._metrics.calibration_stale("age", is_stale)
        if is_stale:
            log.warning(
                "model %s was calibrated %.0f days ago, more than calibration_max_age_days: %g; "
                "calibrate again",
                *(self._name, days, self._most_days),
            )


def made_s(date: str) -> float:
    """Seconds since 1970 of a date in RFC 3339, UTC where it names no zone; NaN if unreadable."""
    try:
        made = datetime.fromisoformat(date)
    except ValueError:
        return math.nan
    return (made if made.tzinfo is not None else made.replace(tzinfo=UTC)).timestamp()
