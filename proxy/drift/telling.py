"""What an operator is told of a drift: when it begins, what follows from it, when it is over."""

from __future__ import annotations

import logging

from proxy.drift.panes import ENOUGH
from proxy.drift.population import Population, alarming
from proxy.drift.state import State

log = logging.getLogger(__name__)


def withheld(population: Population, state: State) -> str | None:
    """Why an alarm does not lead to what `on_alarm` says; None where it does, or says nothing."""
    if population.settings.on_alarm == "none" or not state.is_one_callers:
        return None
    return f"fewer than {ENOUGH} principals in half a window: one of them may have raised the alarm"


def tell(population: Population, before: State, after: State) -> None:
    """Tell the operator what has changed."""
    model, settings = population.subject.model, population.settings
    if after.is_drifting and not before.is_drifting:
        effect = {
            "none": "nothing else follows",
            "suspend": "suspicious requests are flagged only",
            "widen": "only the most suspicious requests are acted on",
        }[settings.on_alarm]
        signals = ", ".join(alarming(after, settings.least_distance))
        text = "model %s: the traffic has drifted from its calibration (%s); %s: calibrate again"
        reason = withheld(population, after)
        if reason is not None:
            population.withheld(settings.on_alarm)
            effect = f"{settings.on_alarm} is withheld, `action` is in force ({reason})"
        log.warning(text, model, signals, effect)
    elif before.is_drifting and not after.is_drifting:
        log.warning("model %s: the traffic is like its calibration again", model)
