"""An attacker who knows the whole defence: joint loss, straight-through and averaged gradients.

The attacker has the model, every detector with what it learned, the fusion with its threshold and
every purifier; secret random choices are drawn anew at each look. What is defended is a `Target`:
anything that answers a batch and says how suspicious it finds it, with gradients.

Source: joint loss with a weight adapted to each sample, Carlini and Wagner, AISec 2017 (arXiv
1705.07263) and Tramer et al., NeurIPS 2020 (arXiv 2002.08347); BPDA and EOT, Athalye et al., ICML
2018 (arXiv 1802.00420); momentum, Dong et al., CVPR 2018 (arXiv 1710.06081).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.benign import rounded

MARGIN = 0.1
"""How far below the threshold the attacker wants the fused score."""
MOMENTUM = 0.75
RAISE = 1.3
"""Factor by which a sample's weight on the fused score rises while it is flagged, and falls while
it is not misclassified. Both gradients have unit length, so the weight starts at 1."""
LEAST, MOST = 0.02, 50.0
DRAWS, FINAL_DRAWS = 6, 10
"""Draws averaged in a step and in the final judgement, where the target makes random choices."""


@dataclass(frozen=True)
class Response:
    """What a defended system says to a batch."""

    answers: Tensor
    """Logits or log-probabilities that are served, (B, K)."""
    suspicion: Tensor
    """Fused score minus threshold, (B,); unless it is <= 0 the attack has failed."""


class Target(Protocol):
    """A defended system, differentiable from image to response."""

    @property
    def is_random(self) -> bool:
        """Whether two looks at one image may differ."""
        ...

    def __call__(self, x: Tensor) -> Response:
        """The response to (B, C, H, W) in [0, 1]; each sample's depends on no other."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How each image fares, as shares of the draws (0 or 1 where nothing is random), (B,)."""

    wrong: Tensor
    """The served answer is wrong."""
    quiet: Tensor
    """It is not flagged."""
    won: Tensor
    """The served answer is wrong and it is not flagged."""


def judge(target: Target, x: Tensor, y: Tensor, *, draws: int = FINAL_DRAWS) -> Outcome:
    """What the target makes of finished images, by fresh draws where it is random."""
    count = draws if target.is_random else 1
    with torch.no_grad():
        return _mean([_outcome(target(x), y) for _ in range(count)])


def _outcome(response: Response, y: Tensor) -> Outcome:
    wrong = response.answers.argmax(1) != y
    quiet = response.suspicion <= 0  # False for NaN: no proof, no pass
    return Outcome(wrong.float(), quiet.float(), (wrong & quiet).float())


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    names = [each.name for each in fields(Outcome)]
    return Outcome(*(torch.stack([getattr(o, n) for o in outcomes]).mean(0) for n in names))


@dataclass
class _Search:
    """The state of an attack: one row for each image."""

    delta: Tensor
    """The perturbation before rounding."""
    velocity: Tensor
    weight: Tensor
    """On the gradient of the fused score, (B,)."""
    best: Tensor
    """The best rounded image so far."""
    rank: Tensor
    """How good `best` is, (B,); see `_rank`."""

    @classmethod
    def start(cls, x: Tensor, eps: float, seed: int) -> _Search:
        generator = torch.Generator().manual_seed(seed)
        delta = (torch.rand(x.shape, generator=generator) * 2 - 1) * eps
        ones = torch.ones(len(x))
        return cls(delta, torch.zeros_like(x), ones, x.clone(), ones * -math.inf)

    def keep(self, rows: Tensor, point: Tensor, rank: Tensor) -> None:
        """Take over the rounded images that are better than the best so far."""
        better = rank > self.rank[rows]
        self.best[rows[better]] = point[better]
        self.rank[rows[better]] = rank[better]


def attack(
    target: Target, x: Tensor, y: Tensor, *, eps: float, steps: int, seed: int = 7
) -> Tensor:
    """Images within `eps` that the target answers wrongly and does not flag, where that succeeds.

    Every step looks at images already rounded to 8 bits, so what it finds survives as a file.
    Images that have won are left alone, unless the target is random.

    Args:
        target: the defended system.
        x: correctly answered images, (B, C, H, W), multiples of 1/255.
        y: true labels, (B,).
        eps: L-infinity bound, a multiple of 1/255.
        steps: gradient steps.
        seed: of the starting points.

    Returns:
        The best image found for each, (B, C, H, W), rounded to 8 bits.
    """
    search = _Search.start(x, eps, seed)
    for step in range(steps + 1):  # the last one only looks
        rows = torch.arange(len(x))
        if not target.is_random:
            rows = rows[search.rank < 2]
        if not len(rows):
            break
        point = rounded(x[rows] + search.delta[rows]).requires_grad_()
        push, hide, outcome, rank = _look(target, point, y[rows])
        search.keep(rows, point.detach(), rank)
        _adapt(search, rows, outcome)
        direction = push - search.weight[rows].view(-1, 1, 1, 1) * hide
        velocity = MOMENTUM * search.velocity[rows] + direction
        search.velocity[rows] = velocity
        pace = eps * _pace(step / steps)
        moved = (search.delta[rows] + pace * velocity.sign()).clamp(-eps, eps)
        search.delta[rows] = (x[rows] + moved).clamp(0, 1) - x[rows]
    return search.best


def _pace(progress: float) -> float:
    """Step length as a share of eps: from a half down to a fiftieth, along a cosine."""
    return 0.02 + 0.48 * (1 + math.cos(math.pi * progress)) / 2


def _look(target: Target, point: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Outcome, Tensor]:
    """Unit gradients of loss and suspicion, the outcome, and the rank, averaged over draws."""
    push, hide = torch.zeros_like(point), torch.zeros_like(point)
    outcomes, ranks = [], []
    for _ in range(DRAWS if target.is_random else 1):
        response = target(point)
        loss = F.cross_entropy(response.answers, y, reduction="none")
        excess = F.relu(response.suspicion + MARGIN)
        push += _gradient(loss, point)
        hide += _gradient(excess, point)
        outcome = _outcome(response, y)
        outcomes.append(outcome)
        ranks.append(_rank(outcome, loss.detach(), response.suspicion.detach()))
    return _unit(push), _unit(hide), _mean(outcomes), torch.stack(ranks).mean(0)


def _gradient(value: Tensor, point: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(point)
    (gradient,) = torch.autograd.grad(
        value.sum(), point, retain_graph=True, materialize_grads=True, allow_unused=True
    )
    finite: Tensor = gradient.nan_to_num(0, 0, 0)
    return finite


def _unit(gradient: Tensor) -> Tensor:
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
    unit: Tensor = gradient / length.view(-1, 1, 1, 1)
    return unit


def _rank(outcome: Outcome, loss: Tensor, suspicion: Tensor) -> Tensor:
    """2 and more for a win; 1 to 2 for a wrong answer, by how quiet; below 1 by the loss."""
    quietness = torch.sigmoid(-suspicion.nan_to_num(math.inf))
    rest = torch.where(outcome.wrong > 0, 1 + 0.99 * quietness, 1 - 1 / (1 + loss))
    return torch.where(outcome.won > 0, 2 + quietness, rest)


def _adapt(search: _Search, rows: Tensor, outcome: Outcome) -> None:
    """Weigh the fused score more while it flags, less while the answer is still right."""
    factor = torch.where(outcome.quiet < 1, RAISE, 1.0)
    factor = torch.where(outcome.wrong < 1, 1 / RAISE, factor)
    search.weight[rows] = (search.weight[rows] * factor).clamp(LEAST, MOST)
