"""The configuration of drift monitoring: one section of a model's entry."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Windows(_Strict):
    """How much of the latest traffic is compared with the calibration; both windows always run."""

    count: int = Field(default=5000, ge=200, le=1_000_000)
    """Samples in the window by count, in each worker; looked at twice as it fills. Small ones see
    large shifts only."""
    minutes: float = Field(default=60.0, ge=1, le=10_080)
    """Length of the window by time, minutes; looked at twice as it passes."""


class Drift(_Strict):
    """Whether the traffic as a whole still looks like the benign data of the calibration."""

    enabled: bool = True
    """Off: nothing is watched. On costs some microseconds a sample, beside the requests."""
    windows: Windows = Windows()
    false_alarm_days: float = Field(default=30.0, ge=0.1, le=3650)
    """Days between two false alarms, on average, while the traffic is like the calibration's."""
    least_distance: float = Field(default=0.15, gt=0, lt=1)
    """Smaller shifts raise no alarm however sure they are: with much traffic every harmless one is.
    As a share of the samples that lie elsewhere than they would, 0 to 1."""
    on_alarm: Literal["none", "widen", "suspend"] = "none"
    """What an alarm does to `action`; what is done about series of queries stays as it is. none: it
    is told and nothing else. suspend: suspicious requests pass, flagged. widen: only those are
    acted on that are suspicious at a smaller rate of false alarms too, the others are flagged.
    Whoever sends enough odd traffic can raise an alarm, and so take `action` away: default none.
    With fewer than 40 principals in half a window one can do so alone: the alarm is told, and
    `action` stays."""
    widen_to: float = Field(default=4.0, gt=1, le=1000)
    """With widen: that rate is `fpr` divided by this, or the least that the calibration knows."""
    clear_after: int = Field(default=3, ge=1, le=1000)
    """The alarm ends after so many looks in a row that show nothing, at each window that raised it.
    """
    max_suspend_hours: float = Field(default=24.0, gt=0, le=720)
    """Longest that one alarm changes what is done, hours; after that `action` is back, alarm or
    not. `POST /drift/acknowledge` ends it sooner."""
