"""The supervised option: a score learned from generated attacks, validated on kinds left out.

Benign negatives are the scores fusions are fitted on, so no threshold rests on what is learned
from. Each kind of attack weighs as much as any other, and all together as much as the benign
samples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectors.calibration import Calibration
from detectors.fusion import Fusion, Learner, features
from proxy.errors import ConfigError

_PENALTY = 0.1
"""Inverse strength of the L2 penalty of the logistic regression."""

Attacked = Mapping[str, Mapping[str, Tensor]]
"""Kind of attack -> detector -> (n,) scores of attacked samples."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What a learner that has never seen a kind of attack makes of it."""

    family: str
    level: str
    without: float
    """Share detected by the unsupervised fusion alone."""
    left_out: float
    """Share detected with a learner trained on the other kinds."""


def learn(
    calibration: Calibration,
    levels: Mapping[str, Sequence[str]],
    attacked: Attacked,
    silent: Collection[str] = (),
) -> Calibration:
    """The calibration with a learned score for each evidence level of two detectors or more.

    Args:
        silent: detectors that say nothing about these attacks, and so have no weight. Else those
            that look at earlier queries would speak for an input: attacked ones have none here,
            and benign ones do.

    Raises:
        ConfigError: scikit-learn is not installed, or a kind of attack has no finite scores.
    """
    learners = [
        _learner(calibration, tuple(names), attacked, silent)
        for names in levels.values()
        if len(names) > 1
    ]
    return calibration.with_learners(learners)


def validate(
    calibration: Calibration,
    levels: Mapping[str, Sequence[str]],
    attacked: Attacked,
    fpr: float,
    silent: Collection[str] = (),
) -> list[Validation]:
    """Leave each kind of attack out in turn, and see what a learner of the others detects of it."""
    found = []
    for level, names in levels.items():
        if len(names) < 2:
            continue
        plain = calibration.with_learners([])
        for family, scores in attacked.items():
            others = {name: other for name, other in attacked.items() if name != family}
            subject = plain.with_learners([_learner(plain, tuple(names), others, silent)])
            found.append(
                Validation(
                    family,
                    level,
                    _detected(plain, names, scores, fpr),
                    _detected(subject, names, scores, fpr),
                )
            )
    return found


def _detected(
    calibration: Calibration, names: Sequence[str], scores: Mapping[str, Tensor], fpr: float
) -> float:
    rule = calibration.rule([names], fpr)
    fused = rule.score({name: scores[name] for name in names})
    return (fused > rule.threshold.value).float().mean().item()


def _learner(
    calibration: Calibration, names: tuple[str, ...], attacked: Attacked, silent: Collection[str]
) -> Learner:
    groups = calibration.fitting(names)
    tails = Fusion(names, groups).tails
    told = torch.tensor([float(name not in silent) for name in names])
    benign = [features(tails(scores) * told) for scores in groups.values()]
    hostile = [
        features(tails(_matrix(family, names, attacked[family])) * told) for family in attacked
    ]
    weights = _logistic(benign, hostile)
    return Learner(names, torch.from_numpy(weights).float())


def _matrix(family: str, names: Sequence[str], scores: Mapping[str, Tensor]) -> Tensor:
    matrix = torch.stack([scores[name] for name in names], dim=1)
    matrix = matrix[torch.isfinite(matrix).all(dim=1)]
    if not len(matrix):
        raise ConfigError(f"attacks of kind {family} have no finite scores to learn from")
    return matrix


def _logistic(benign: Sequence[Tensor], hostile: Sequence[Tensor]) -> npt.NDArray[np.float64]:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ConfigError(
            "a supervised calibration needs scikit-learn: pip install 'breakwater[supervised]'"
        ) from error
    parts = [*benign, *hostile]
    x = torch.cat(parts).numpy()
    y = np.repeat([0, 1], [sum(map(len, benign)), sum(map(len, hostile))])
    shares = [1 / len(benign)] * len(benign) + [1 / len(hostile)] * len(hostile)
    weight = np.concatenate(
        [np.full(len(part), share / len(part)) for part, share in zip(parts, shares, strict=True)]
    )
    model = LogisticRegression(C=_PENALTY, max_iter=500)
    model.fit(x, y, sample_weight=weight * len(weight))
    coefficients: npt.NDArray[np.float64] = model.coef_[0]
    return coefficients
