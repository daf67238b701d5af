"""Chains of queries that follow on each other: what one more query does to a chain.

A query that resembles an earlier one continues its chain. The chain's statistics travel with its
queries: each carries those of the one it follows on, updated. What tells a search for an
adversarial input from a video or a burst of photographs is not that queries are alike but how they
differ. Plain numpy; remembers nothing itself.

Source: the idea of judging sequences of linked queries instead of pairs is that of QPA; of judging
the updates between queries, of GWAD (Park, Kim, McDaniel et al., arXiv 2503.02986). The statistics
are our own, from the query logs of `python -m loadtests.query_attacks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.sketch import SIZE
from detectors.steps import MOST, Sketches, half_step, is_corner, is_retraced, near

FEATURES = ("strangest", "anomaly", "halving", "mirrored", "flips", "length")
"""The columns of `Evidence.chain`; all 0 for a query that follows on none.

strangest: the largest anomaly of the chain's inputs, -log of a benign share. Square and its kin
    start from stripes no benign image has.
anomaly: mean anomaly of the latest ten or so.
halving: how many times in a row a query took half the step of the last one, on the same line: the
    binary search for the decision boundary of HopSkipJump and the boundary attack.
mirrored: how often, of late, a query and three earlier ones were the corners of a square, with
    white noise all over the image for sides: the mirrored pairs of gradient estimates (NES).
flips: how often, of late, the model's class changed from a query to the next.
length: queries in the chain, for whoever reads it; no evidence.
"""

RECORD = np.dtype(
    [
        ("sketch", "<i2", (SIZE,)),
        ("digest", "<u8"),
        ("owner", "<u8"),
        ("time", "<f8"),
        ("since", "<f8"),
        ("length", "<u4"),
        ("owners", "<u2"),
        ("label", "<i4"),
        ("origin", "<i4"),
        ("blame", "u1"),
        ("strangest", "<f4"),
        ("anomaly", "<f4"),
        ("halving", "<f4"),
        ("gap", "<f4"),
        ("misses", "<f4"),
        ("mirrored", "<f4"),
        ("flips", "<f4"),
    ]
)
"""A remembered query, packed. `time` and `since` are the query's and its chain's begin, in
seconds equal on all replicas; `label` is the model's class for the query and `origin` for the
chain's first, both `NO_LABEL` where nobody knows; `gap` and `misses` are of the halving; `blame` is
`OWN` where the chain's statistics are the asker's own doing, `NEWCOMER` where that is taken for
granted for once, 0 otherwise (`follow`)."""

VERSION = 1
"""Of what the statistics mean; another one makes calibrations stale, and is raised with them."""
NO_LABEL = -1
OWN, NEWCOMER = 1, 2
_ODD = 3.0
"""Anomaly from which a query adds to a chain that others began: one benign image in twenty."""
_KEEP = 0.9
"""What a count of earlier events is worth at the next query: it reaches ten or so queries back."""
_BOUND = 20.0
"""Anomalies count no more than one benign image in half a billion."""
_CONTENT, _PERCEPTUAL = 3, 2
"""Keys of a kind that two queries share when they are alike without being near."""
_HALF = (0.42, 0.58)
_MISSES = 3

Recent = npt.NDArray[np.void]
Shared = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Query:
    """One query, as the history sees it."""

    sketch: npt.NDArray[np.int16]
    """(SIZE,), `detectors.sketch`."""
    digest: int
    """Equal for identical inputs."""
    owner: int
    anomaly: float
    """-log of the benign share whose input looks more suspicious, of 0 or more."""
    time: float


def linked(sketch: npt.NDArray[np.int16], earlier: npt.NDArray[np.void], shared: Shared) -> Mask:
    """Which earlier queries a query follows on, (M,) bool.

    Args:
        sketch: (SIZE,) of the query.
        earlier: (M,) `RECORD`.
        shared: (M, 2) how many keys it shares with each, of content and of perception.
    """
    alike = (shared[:, 0] >= _CONTENT) | (shared[:, 1] >= _PERCEPTUAL)
    return near(sketch, earlier["sketch"]) | alike


def searched(query: Query, others: npt.NDArray[np.void]) -> Mask:
    """Which of a principal's latest queries a query is the next step from, (N,) bool.

    It follows on them, as different as they may be. All False where it is no step of a binary
    search.
    """
    order = _order(others)[:MOST]
    step = half_step(query.sketch, others["sketch"][order])
    between = np.zeros(len(others), np.bool_)
    if step is not None:
        between[order[list(step.pair)]] = True
    return between


def begin(query: Query) -> npt.NDArray[np.void]:
    """The record of a query that follows on none, ()."""
    record: npt.NDArray[np.void] = begun(
        query.sketch[None],
        np.array([query.digest], np.uint64),
        np.array([query.anomaly]),
        owner=query.owner,
        time=query.time,
    )[0]
    return record


def begun(
    sketches: Sketches,
    digests: npt.NDArray[np.uint64],
    anomalies: npt.NDArray[np.floating[Any]],
    *,
    owner: int,
    time: float,
) -> npt.NDArray[np.void]:
    """The records of the queries of one request that follow on none, (B,) of (B, SIZE), (B,)."""
    records = np.zeros(len(digests), RECORD)
    records["sketch"], records["digest"], records["owner"] = sketches, digests, owner
    records["time"] = records["since"] = time
    records["length"] = records["owners"] = 1
    records["blame"] = OWN
    records["label"] = records["origin"] = NO_LABEL
    bounded = np.nan_to_num(np.clip(anomalies, 0.0, _BOUND), nan=0.0)
    records["strangest"] = records["anomaly"] = bounded
    return records


def follow(
    query: Query,
    earlier: npt.NDArray[np.void],
    others: npt.NDArray[np.void] | None = None,
    trail: Sketches | None = None,
    *,
    newcomer: bool = False,
) -> npt.NDArray[np.void]:
    """The record of a query that follows on earlier ones, ().

    It continues the longest of their chains; of the principal's own, the strangest input counts,
    whichever it belongs to, for replicas may see the beginnings of one search apart. An exact
    repeat changes nothing: it is a retry, and gets the record of the query it repeats.

    Who continues what somebody else began answers for it only by adding to it: an unusual input, a
    step of a search, a mirrored pair. Otherwise one query near an image would put everybody under
    suspicion who asks about that image later. Whose very first query this is, is taken for one of
    many names of the same attacker, but only for this query.

    Args:
        earlier: (M,) `RECORD`, M >= 1.
        others: (N,) `RECORD`: what else was asked of late, by the same principal. The first steps
            of a binary search are too far apart to be alike.
        trail: (T, SIZE) the principal's latest queries in their order, T <= `TRAIL`.
        newcomer: the principal has asked nothing before.
    """
    same = earlier["digest"] == query.digest
    if same.any():
        return _repeated(query, earlier[same])
    last = earlier[earlier["length"].argmax()]
    record, recent = begin(query), _latest(earlier)
    record["since"], record["length"] = last["since"], last["length"] + 1
    weight = _weight(int(last["length"]))
    record["anomaly"] = (record["anomaly"] + _KEEP * weight * last["anomaly"]) / _weight(
        int(last["length"]) + 1
    )
    is_step = _halve(
        record, last, recent if others is None else _latest(np.concatenate((earlier, others)))
    )
    is_mirrored = is_corner(query.sketch, recent["sketch"]) or (
        trail is not None and is_retraced(query.sketch, trail)
    )
    record["mirrored"] = _KEEP * last["mirrored"] + is_mirrored
    record["flips"], record["label"] = last["flips"], last["label"]
    adds = is_step or is_mirrored or query.anomaly >= _ODD
    own = earlier[earlier["owner"] == query.owner]
    record["strangest"] = max(record["strangest"], own["strangest"].max(initial=0))
    if last["owner"] == query.owner:
        record["owners"], record["origin"] = last["owners"], last["origin"]
        record["blame"] = OWN if adds or last["blame"] == OWN else 0
    else:
        record["owners"] = min(int(last["owners"]) + 1, 65_535)
        record["blame"] = OWN if adds else NEWCOMER if newcomer else 0
    return record


def _repeated(query: Query, same: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The record of a query asked before: the principal's own, if there is one."""
    own = same["owner"] == query.owner
    known = same[own] if own.any() else same
    record: npt.NDArray[np.void] = known[known["length"].argmax()].copy()
    if not own.any():
        record["blame"], record["origin"] = 0, NO_LABEL
    return record


def answered(record: npt.NDArray[np.void], label: int) -> None:
    """Note the model's class for a query, once; in place."""
    if record["label"] != NO_LABEL:
        record["flips"] = _KEEP * record["flips"] + (record["label"] != label)
    record["label"] = label
    if record["origin"] == NO_LABEL:
        record["origin"] = label


def features(records: npt.NDArray[np.void]) -> npt.NDArray[np.float32]:
    """The evidence in records, (B, len(FEATURES)); 0 for queries that follow on none.

    All but the length is 0, too, where the statistics are none of the asker's doing.
    """
    table = np.stack([records[name].astype(np.float32) for name in FEATURES], axis=1)
    table[records["blame"] == 0, :-1] = 0
    return np.where(records["length"][:, None] > 1, table, np.float32(0))


def _weight(length: int) -> float:
    """The sum of what the anomalies of a chain count in its mean."""
    return (1 - _KEEP**length) / (1 - _KEEP)


def _order(records: npt.NDArray[np.void]) -> npt.NDArray[np.intp]:
    """The latest first; of one batch, which has one time, those further on."""
    order: npt.NDArray[np.intp] = np.lexsort((np.arange(len(records)), records["time"]))[::-1]
    return order


def _latest(records: npt.NDArray[np.void]) -> Recent:
    latest: Recent = records[_order(records)[:MOST]]
    return latest


def _halve(record: npt.NDArray[np.void], last: npt.NDArray[np.void], recent: Recent) -> bool:
    """Go on counting how often in a row the step was halved; whether this was such a step."""
    step = half_step(record["sketch"], recent["sketch"])
    if step is None:
        misses = last["misses"] + 1
        record["misses"], record["gap"] = misses, last["gap"]
        record["halving"] = last["halving"] if misses <= _MISSES else _KEEP * last["halving"]
        return False
    halved = _HALF[0] < step.gap / last["gap"] < _HALF[1] if last["gap"] else False
    record["gap"] = step.gap
    record["halving"] = last["halving"] + 1 if halved else 0
    return True
