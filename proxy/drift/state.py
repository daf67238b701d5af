"""What is held about a model's traffic: calm or drifting, and why. Pure; travels as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from proxy.drift.settings import Drift

Window = Literal["count", "time"]
WINDOWS: tuple[Window, ...] = get_args(Window)
Response = Literal["none", "widen", "suspend"]


_CLOCKS_S = 60.0
"""By how much the clocks of two workers may be read apart."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How one signal compares with the calibration."""

    signal: str
    """`score/DETECTOR`, `input/NAME`, `classes` or `verdict`."""
    p_value: float
    """Chance of such a difference or a larger one without drift, corrected for dependent samples;
    NaN where there is too little to tell."""
    distance: float
    """How large the difference is, 0 to 1."""
    effective_samples: float
    """Independent samples that the window's are worth."""


@dataclass(frozen=True, slots=True)
class Look:
    """The latest look at one window."""

    marks: tuple[int, ...] = ()
    """How far each worker's window had come."""
    time_s: float = 0.0
    """Unix time of the latest test; a look at too few samples is none."""
    samples: float = 0.0
    """Independent samples that the window's were worth."""
    seen: tuple[Seen, ...] = ()
    raised: bool = False
    """This window raised an alarm that it has not taken back."""
    calm: int = 0
    """Looks in a row that showed nothing since."""
    by_stretch: bool = False
    """Too few principals to compare them with each other: one of them may be all that is odd."""


@dataclass(frozen=True, slots=True)
class State:
    """What is held about one model's traffic."""

    subject: str = ""
    """What it is about, see `Population.subject`; about another it means nothing."""
    since_s: float = 0.0
    """Unix time of the alarm, while drifting."""
    acknowledged: bool = False
    """An operator has taken note of the alarm: it changes nothing that is done any more."""
    looks: Mapping[str, Look] = field(default_factory=dict)
    """By window."""

    @property
    def is_drifting(self) -> bool:
        """Whether some window's alarm stands."""
        return any(look.raised for look in self.looks.values())

    @property
    def is_one_callers(self) -> bool:
        """Whether a single principal may have raised every alarm that stands."""
        return self.is_drifting and all(
            look.by_stretch for look in self.looks.values() if look.raised
        )

    def response(self, settings: Drift, now_s: float) -> Response:
        """What is to be done about it now."""
        until_s = self.since_s + 3600 * settings.max_suspend_hours
        # Before its beginning, where the clock was set back: no longer than it would have lasted.
        lasts = self.since_s - _CLOCKS_S <= now_s < until_s
        if not self.is_drifting or self.acknowledged or not lasts:
            return "none"
        if self.is_one_callers:  # or one caller could switch `action` off
            return "none"
        return settings.on_alarm

    def tested(
        self, window: Window, look: Look, *, alarm: bool, calm: bool, clear_after: int
    ) -> State:
        """What is held after a test of a window.

        Args:
            window: which.
            look: the findings; `raised` and `calm` are set here, and `by_stretch` stays until
                many principals show the same.
            alarm: the test raises an alarm.
            calm: it shows nothing at all; between the two, what was held stands.
            clear_after: calm tests in a row that end this window's alarm.
        """
        before = self.looks.get(window, Look())
        count = before.calm + 1 if calm and before.raised and not alarm else 0
        raised = alarm or (before.raised and count < clear_after)
        doubted = look.by_stretch or (before.raised and before.by_stretch and not alarm)
        look = replace(look, raised=raised, calm=count if raised else 0, by_stretch=doubted)
        after = replace(self, looks={**self.looks, window: look})
        if not after.is_drifting:
            return replace(after, since_s=0.0, acknowledged=False)
        if not self.is_drifting:
            return replace(after, since_s=look.time_s, acknowledged=False)
        return after

    def noticed(self, window: Window, look: Look) -> State:
        """What is held after a look at too few samples: as before, with what little was seen."""
        before = self.looks.get(window, Look())
        look = replace(
            look,
            time_s=before.time_s,
            raised=before.raised,
            calm=before.calm,
            by_stretch=look.by_stretch or before.by_stretch,
        )
        return replace(self, looks={**self.looks, window: look})

    def acknowledge(self) -> State:
        """The same, noted by an operator."""
        return replace(self, acknowledged=self.is_drifting)

    def to_json(self) -> dict[str, Any]:
        """The same, ready for JSON; NaN as null."""
        facts = asdict(self)
        for look in facts["looks"].values():
            look["marks"] = list(look["marks"])
            look["seen"] = [
                {key: None if value != value else value for key, value in each.items()}
                for each in look["seen"]
            ]
        return facts

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> State:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is not what `to_json` gives.
        """
        try:
            looks = {window: _look(each) for window, each in facts["looks"].items()}
            if not looks.keys() <= set(WINDOWS):
                raise ValueError(f"unknown windows: {sorted(looks)}")
            return cls(
                str(facts["subject"]), float(facts["since_s"]), bool(facts["acknowledged"]), looks
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the state of a drift monitor: {error!r}") from error


def _look(facts: Mapping[str, Any]) -> Look:
    seen = tuple(
        Seen(
            str(each["signal"]),
            *(
                float("nan") if each[key] is None else float(each[key])
                for key in ("p_value", "distance", "effective_samples")
            ),
        )
        for each in facts["seen"]
    )
    return Look(
        tuple(int(mark) for mark in facts["marks"]),
        float(facts["time_s"]),
        float(facts["samples"]),
        seen,
        bool(facts["raised"]),
        int(facts["calm"]),
        bool(facts["by_stretch"]),
    )
