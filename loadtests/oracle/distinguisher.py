"""How well two kinds of answers can be told apart: an area under a ROC curve, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from loadtests.oracle.seen import Seen

_FOLDS = 5
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Auc:
    """Area under the curve with its interval; 0.5: guessing, 1: certainty."""

    value: float
    low: float
    high: float


def by_latency(clean: Sequence[Seen], flagged: Sequence[Seen]) -> Auc:
    """Of the time alone, whichever way round tells more."""
    auc = _auc(_seconds(flagged), _seconds(clean))
    return auc if auc.value >= 0.5 else Auc(1 - auc.value, 1 - auc.high, 1 - auc.low)


def by_everything(clean: Sequence[Seen], flagged: Sequence[Seen], *, seed: int) -> Auc:
    """Of a forest that learns from time, status, metadata and form, judged on answers unseen."""
    every = [*clean, *flagged]
    is_flagged = np.array([False] * len(clean) + [True] * len(flagged))
    forest = RandomForestClassifier(300, min_samples_leaf=5, n_jobs=1, random_state=seed)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_predict(
        forest, _features(every), is_flagged, cv=folds, method="predict_proba"
    )[:, 1]
    return _auc(scores[is_flagged], scores[~is_flagged])


def _features(every: Sequence[Seen]) -> NDArray[np.float64]:
    """Time, its remainder to a millisecond, length, and which of the forms seen each answer has."""
    seconds = _seconds(every)
    forms = [seen.form for seen in every]
    kinds = list(dict.fromkeys(forms))
    columns = [
        seconds,
        seconds % 1e-3,
        np.array([s.length for s in every], float),
        *(np.array([form == kind for form in forms], float) for kind in kinds[:50]),
    ]
    return np.stack(columns, axis=1)


def _seconds(answers: Sequence[Seen]) -> NDArray[np.float64]:
    return np.array([answer.seconds for answer in answers])


def _auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> Auc:
    """Mann-Whitney's statistic, with the interval of Hanley and McNeil (Radiology 143, 1982)."""
    n, m = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    a = float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m)
    half = float(norm.ppf((1 + _LEVEL) / 2)) * max(0.0, variance) ** 0.5
    return Auc(a, max(0.0, a - half), min(1.0, a + half))
