"""The attacks by name, each with its bound and budget."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.query_attacks.adaptive import AdaptiveNes, AdaptiveSquare, Sense
from loadtests.query_attacks.adaptive_decision import AdaptiveHopSkipJump
from loadtests.query_attacks.blinding import Blinding
from loadtests.query_attacks.senses import Told
from tuning.evaluate.attackers import L2, LINF, Decided, Nes, Run, Scored
from tuning.evaluate.attempt import Bound, Habits

DECISION_BUDGET = 1000
"""Queries of an attack that is told only the class; it needs more than one that reads scores."""


@dataclass(frozen=True)
class Plan:
    """One attack with what it is given."""

    run: Run
    bound: Bound = LINF
    budget: int = 500
    blinded: bool = False
    round8: bool = False

    def habits(self, seed: int, *, skip_clean: bool = False) -> Habits:
        """The attacker's habits in the run with this seed."""
        return Habits(
            budget=self.budget,
            skip_clean=skip_clean,
            round8=self.round8,
            blind=Blinding(seed) if self.blinded else None,
        )


_SQUARE = Scored("SquareAttack", {"eps": LINF.size, "max_iter": 500})
_DCT = {"attack": "dct", "freq_dim": 16, "stride": 1, "order": "random"}
_SIMBA = Scored("SimBA", {**_DCT, "epsilon": 0.1, "max_iter": 1000}, probabilities=True)
_HSJ = Decided("HopSkipJump", {"norm": 2, "max_iter": 60, "max_eval": 1000, "init_eval": 30})
_SIGN = {"max_iter": 50, "query_limit": DECISION_BUDGET, "num_trial": 10, "k": 50}

SUITE: dict[str, Plan] = {
    "square": Plan(_SQUARE),
    "square_round8": Plan(_SQUARE, round8=True),
    "square_blind": Plan(_SQUARE, blinded=True),
    "nes_001": Plan(Nes(0.001)),
    "nes_01": Plan(Nes(0.01)),
    "nes_blind": Plan(Nes(0.01), blinded=True),
    "simba": Plan(_SIMBA, L2),
    "hsj": Plan(_HSJ, L2, DECISION_BUDGET),
    "boundary": Plan(Decided("BoundaryAttack", search=True), L2, DECISION_BUDGET),
    "sign_opt": Plan(Decided("SignOPTAttack", _SIGN), L2, DECISION_BUDGET),
}
"""Attackers who do not adapt."""


def adaptive(sense: Sense = Told) -> dict[str, Plan]:
    """Attackers who adapt.

    Args:
        sense: how they find out: `Told` by refusals, `Canary` where nothing is told.
    """
    return {
        "adaptive_square": Plan(AdaptiveSquare(sense)),
        "adaptive_nes": Plan(AdaptiveNes(sense)),
        "adaptive_hsj": Plan(AdaptiveHopSkipJump(sense), L2, DECISION_BUDGET),
    }
