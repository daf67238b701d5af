"""Detectors by cost, and how far the judgement of samples has come: only those in doubt go on.

Knows neither devices nor requests: `proxy.scoring` runs the detectors, `proxy.rules` says when a
sample is settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise

import torch
from torch import Tensor

from detectors.base import Detector, Need
from detectors.rule import Cascade, Rule
from purifiers.learned import Learned


class Stage(StrEnum):
    """What a detector's score costs once all that is cheaper is there; in this order."""

    INPUT = "input"
    """Statistics of the input."""
    ANSWER = "answer"
    """Statistics of the model's own answer, which comes by itself."""
    NETWORK = "network"
    """A network run here."""
    QUERIES = "queries"
    """Answers to questions of the proxy's own, to this model or to others."""


STAGES = tuple(Stage)


def stage_of(part: Detector) -> Stage:
    """When a detector is run: plug-ins of tier 3 count as networks, like those with weights."""
    if part.needs is Need.VIEWS:
        return Stage.QUERIES
    if part.tier >= 3 or isinstance(part, Learned):
        return Stage.NETWORK
    return Stage.ANSWER if part.asks else Stage.INPUT


def levels_of(
    parts: Sequence[Detector], cascade: Cascade | None
) -> tuple[list[tuple[str, ...]], list[Cascade]]:
    """The detectors that have looked by each level, and when a sample stops at all but the last.

    What the history says comes last: a sample that an earlier level settles is judged by its chain
    for the alarm alone. Before the model's own answer, which comes by itself, only the suspicious
    stop: what looks ordinary may show in the answer for nothing (`loadtests/NOTES.md`, Cascade).

    Args:
        cascade: None for a single level.
    """
    if cascade is None:
        return [tuple(d.name for d in parts)], []
    ranks = {d.name: STAGES.index(stage_of(d)) for d in parts if d.needs is not Need.HISTORY}
    last = max(ranks.values(), default=0)
    ranks |= {d.name: max(last, 1) for d in parts if d.needs is Need.HISTORY}
    reached = sorted(set(ranks.values()))
    levels = [tuple(d.name for d in parts if ranks[d.name] <= rank) for rank in reached]
    answers = {ranks[d.name] for d in parts if stage_of(d) is Stage.ANSWER}
    stops = [
        Cascade(1.0, cascade.suspicious) if then == 1 and then in answers else cascade
        for _, then in pairwise(reached)
    ]
    return levels, stops


@dataclass(frozen=True, slots=True)
class Stand:
    """How far the judgement of B samples has come. All tensors are on the CPU.

    A sample is fused at one level after the other until one settles it; see `Rule.settles`.
    """

    rule: Rule
    level: int
    """Index into the rule's levels of the one to complete next; past the last when none is."""
    rows: tuple[int, ...]
    """The samples in doubt, ascending."""
    fused: Tensor
    """(B,) float32, NaN where in doubt."""
    reached: tuple[int, ...]
    """The level at which each sample was settled; of those in doubt, 0."""
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    """Detector -> (B,) float32; NaN for samples it was not run for."""

    @classmethod
    def start(cls, rule: Rule, count: int) -> Stand:
        """So many samples of which nothing is known."""
        return cls(rule, 0, tuple(range(count)), torch.full((count,), torch.nan), (0,) * count)

    def found(self, scores: Mapping[str, Tensor]) -> Stand:
        """The same with scores of the samples in doubt, detector -> (len(rows),), or of all."""
        count = len(self.fused)
        whole = {name: _spread(each, self.rows, count) for name, each in scores.items()}
        return replace(self, scores={**self.scores, **whole})

    def missing(self, parts: Sequence[Detector]) -> list[Detector]:
        """The detectors of the next level that have not been run."""
        names = self.rule.levels[self.level]
        return [d for d in parts if d.name in names and d.name not in self.scores]

    def settled(self) -> tuple[Stand, list[int]]:
        """One level on, its scores all there; and which of `rows`, by position, stay in doubt."""
        chosen = list(self.rows)
        everybody = len(chosen) == len(self.fused)
        names = self.rule.levels[self.level]
        scores = {n: self.scores[n] if everybody else self.scores[n][chosen] for n in names}
        fused = self.rule.fuse(self.level, scores)
        if self.level == len(self.rule.levels) - 1:
            whole = fused if everybody else self.fused.index_copy(0, torch.tensor(chosen), fused)
            reached = _marked(self.reached, chosen, self.level)
            # The level tells which scores are there, so that those who share it can be joined.
            return replace(self, level=self.level + 1, rows=(), fused=whole, reached=reached), []
        done = self.rule.settles(self.level, fused).tolist()
        stay = [i for i, is_done in enumerate(done) if not is_done]
        over = [row for row, is_done in zip(chosen, done, strict=True) if is_done]
        whole = self.fused.clone()
        whole[over] = fused[[i for i, is_done in enumerate(done) if is_done]]
        stand = replace(
            self,
            level=self.level + 1,
            rows=tuple(chosen[i] for i in stay),
            fused=whole,
            reached=_marked(self.reached, over, self.level),
        )
        return stand, stay

    def again(self, rule: Rule) -> Stand:
        """The same scores from the first level on, by a rule for other detectors."""
        names = rule.names
        kept = {name: each for name, each in self.scores.items() if name in names}
        return replace(Stand.start(rule, len(self.fused)), scores=kept)


def join(stands: Sequence[Stand]) -> Stand:
    """Requests as one, in order; all at the same level of one rule, with the same scores."""
    first = stands[0]
    if len(stands) == 1:
        return first
    rows: list[int] = []
    at = 0
    for stand in stands:
        rows += [at + row for row in stand.rows]
        at += len(stand.fused)
    return Stand(
        first.rule,
        first.level,
        tuple(rows),
        torch.cat([stand.fused for stand in stands]),
        tuple(level for stand in stands for level in stand.reached),
        {name: torch.cat([stand.scores[name] for stand in stands]) for name in first.scores},
    )


def split(stand: Stand, sizes: Sequence[int]) -> list[Stand]:
    """The inverse of `join`."""
    if len(sizes) == 1:
        return [stand]
    parts = []
    at = 0
    for size in sizes:
        end = at + size
        parts.append(
            Stand(
                stand.rule,
                stand.level,
                tuple(row - at for row in stand.rows if at <= row < end),
                stand.fused[at:end],
                stand.reached[at:end],
                {name: each[at:end] for name, each in stand.scores.items()},
            )
        )
        at = end
    return parts


def _spread(scores: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """Scores of some samples among all, NaN for the others."""
    if len(scores) == count:
        return scores
    return scores.new_full((count,), torch.nan).index_copy(0, torch.tensor(rows), scores)


def _marked(reached: Sequence[int], rows: Sequence[int], level: int) -> tuple[int, ...]:
    marks = list(reached)
    for row in rows:
        marks[row] = level
    return tuple(marks)
