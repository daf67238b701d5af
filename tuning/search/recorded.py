"""The recorded samples of an evaluation, in halves that share no image, and what is kept back.

One half is searched, the other tells what the choice is worth. Of the attacks, some are not looked
at by the search at all: how a policy does against these is what it may do against the next one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from proxy.errors import ConfigError
from proxy.evaluation import ATTACK, BENIGN, Evaluation, Kind

CLEAN = "clean"
"""The benign group that requests are expected to be of."""
LEAST = 20
"""Fewest samples of a half that say anything."""
_KEPT_BACK = 1 / 3
"""Share of the families of attacks that the search does not see."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Samples:
    """Recorded samples of one benign group or attack."""

    scores: Tensor
    """(N, D) float32, a column for each detector of the evaluation."""
    right: Flags | None
    """(N, W) whether the answer served is right, by each way; None where nobody knows."""
    base: npt.NDArray[np.int64] | None = None
    """(N,) which image each was made from; None where the evaluation does not say."""


@dataclass(frozen=True, slots=True)
class Half:
    """Benign groups and attacks by name."""

    benign: Mapping[str, Samples]
    attacks: Mapping[str, Samples]


@dataclass(frozen=True, slots=True)
class Recorded:
    """An evaluation, ready to be searched."""

    detectors: tuple[str, ...]
    ways: tuple[str, ...]
    searched: Half
    held: Half
    kept_back: tuple[str, ...]
    """Attacks the search does not see; they are in `held` alone."""
    threats: Mapping[str, str]
    """Attack -> what the attacker knew."""
    tuned_on: frozenset[str]
    """Attacks that some part of the defence learned from."""


def record(evaluation: Evaluation, *, seed: int = 0) -> Recorded:
    """Split an evaluation.

    Args:
        seed: of the halves and of the attacks kept back.

    Raises:
        ConfigError: it has too few benign samples.
    """
    benign, attacks = evaluation.of(BENIGN), evaluation.of(ATTACK)
    if not benign:
        raise ConfigError("the evaluation has no benign samples: evaluate again with --data")
    small = [name for name, kind in benign.items() if len(kind.scores) < 2 * LEAST]
    if small:
        raise ConfigError(
            f"the evaluation has fewer than {2 * LEAST} samples of {', '.join(sorted(small))}: "
            "evaluate again with more --data"
        )
    bases = _bases(evaluation)
    side = _Sides(bases, seed)
    halves = [
        Half(
            {name: _samples(kind, bases, side.rows(kind) == half) for name, kind in benign.items()},
            {
                name: _samples(kind, bases, side.rows(kind) == half)
                for name, kind in attacks.items()
            },
        )
        for half in (0, 1)
    ]
    kept_back = _kept_back(tuple(attacks), evaluation, seed)
    seen = {name: each for name, each in halves[0].attacks.items() if name not in kept_back}
    trained = evaluation.about.get("trained_on")
    return Recorded(
        evaluation.detectors,
        evaluation.ways,
        Half(halves[0].benign, {name: each for name, each in seen.items() if len(each.scores)}),
        halves[1],
        kept_back,
        {name: evaluation.threat(name) or "oblivious" for name in attacks},
        frozenset(n for n in attacks if isinstance(trained, Mapping) and trained.get(n) is True),
    )


def family(attack: str, evaluation: Evaluation) -> str:
    """Attacks of one family work alike, at whatever strength and whatever the attacker knows.

    Where the evaluation does not say, the name does without its strength: pgd of pgd_8 or pgd4.
    """
    told = evaluation.about.get("families")
    known = told.get(attack) if isinstance(told, Mapping) else None
    return str(known) if known else re.sub(r"[\W_]*\d.*$", "", attack.lower()) or attack


def _kept_back(attacks: tuple[str, ...], evaluation: Evaluation, seed: int) -> tuple[str, ...]:
    """The attacks of some families; a family is kept whole, and no threat model left without."""
    of = {name: family(name, evaluation) for name in attacks}
    families = sorted(set(of.values()))
    kept: set[str] = set()
    for each in np.random.default_rng(seed).permutation(families).tolist():
        if len(kept) >= max(round(len(families) * _KEPT_BACK), 1):
            break
        left = {evaluation.threat(n) for n in attacks if of[n] not in kept | {each}}
        if left == {evaluation.threat(n) for n in attacks}:
            kept.add(each)
    return tuple(name for name in attacks if of[name] in kept)


def _bases(evaluation: Evaluation) -> Mapping[str, npt.NDArray[np.int64]]:
    """`role/name` -> which of its images each sample was made from."""
    given = evaluation.about.get("rows")
    if not isinstance(given, Mapping):
        return {}
    counts = {f"{kind.role}/{kind.name}": len(kind.scores) for kind in evaluation.kinds}
    found = {}
    for name, rows in given.items():
        if (
            isinstance(rows, list)
            and len(rows) == counts.get(name)
            and all(type(row) is int and row >= 0 for row in rows)
        ):
            found[name] = np.array(rows, np.int64)
    return found


class _Sides:
    """Which half a sample is in: that of the image it was made from, where it is known.

    Otherwise row i of every benign group is taken for a variation of one image i, as the groups
    are made; and attacked samples, which set no threshold, are dealt by themselves.
    """

    def __init__(self, bases: Mapping[str, npt.NDArray[np.int64]], seed: int) -> None:
        self._bases = bases
        self._seed = seed
        most = max((int(rows.max()) + 1 for rows in bases.values() if len(rows)), default=0)
        self._side = self._dealt(most)

    def rows(self, kind: Kind) -> npt.NDArray[np.int64]:
        """(N,) 0 or 1."""
        rows = self._bases.get(f"{kind.role}/{kind.name}")
        return self._dealt(len(kind.scores)) if rows is None else self._side[rows]

    def _dealt(self, count: int) -> npt.NDArray[np.int64]:
        order = np.random.default_rng(self._seed).permutation(count)
        return (order % 2).astype(np.int64)


def _samples(kind: Kind, bases: Mapping[str, npt.NDArray[np.int64]], chosen: Flags) -> Samples:
    rows = bases.get(f"{kind.role}/{kind.name}")
    return Samples(
        torch.from_numpy(np.ascontiguousarray(kind.scores[chosen])),
        None if kind.right is None else kind.right[chosen].astype(np.bool_),
        None if rows is None else rows[chosen],
    )
