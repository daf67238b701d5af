"""The contract of detectors and purifiers as checks, for parts of one's own.

Everything is random numbers: this says that a part is sound, not that it is of use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from detectors import Detector, DetectorError, Evidence, Need
from detectors.base import peer_key
from detectors.chains import FEATURES
from purifiers import Purifier

SHAPE = (3, 16, 12)
_CLASSES = 10
_BENIGN = 64
_CPU = torch.device("cpu")


class ContractBroken(AssertionError):
    """A part does not keep the contract; the text says which rule."""


def check_detector(
    make: Callable[[], Detector], *, shape: Sequence[int] = SHAPE, benign: int = _BENIGN
) -> None:
    """Check one detector against the rules that the proxy and the calibration rest on.

    Args:
        make: a fresh detector, not fitted, with its network if it uses one.
        shape: of one sample: (C, H, W), (C, T) or (D,).
        benign: samples in each of the two groups it is fitted on.

    Raises:
        ContractBroken: a rule does not hold.
    """
    detector = make()
    groups = {
        name: _evidence(detector, benign, shape, seed)
        for seed, name in enumerate(("clean", "noise"))
    }
    detector.prepare(groups["clean"].x)
    detector.fit(groups)
    _check_scores(detector, shape)
    _check_missing(detector, shape)
    _check_state(detector, make, shape)


def check_purifier(purifier: Purifier, *, shape: Sequence[int] = SHAPE) -> None:
    """Check one purifier against the rules that the proxy rests on.

    Args:
        purifier: with its network if it uses one.
        shape: of one sample: (C, H, W), (C, T) or (D,).

    Raises:
        ContractBroken: a rule does not hold.
    """

    def purified(x: Tensor, seed: int = 1) -> Tensor:
        return purifier.purify(x, torch.Generator().manual_seed(seed))

    for batch in (0, 1, 2, 7):
        x = _random((batch, *shape), batch)
        y = purified(x)
        _rule(y.shape == x.shape and y.dtype == x.dtype, "the result has the input's shape")
        _rule(torch.equal(x, _random((batch, *shape), batch)), "the input is left as it is")
    whole = _random((5, *shape), 9)
    _rule(torch.equal(purified(whole), purified(whole)), "the same generator gives the same")
    differs = not torch.equal(purified(whole, 1), purified(whole, 2))
    _rule(differs == purifier.is_random, "is_random says whether draws differ")
    alone = purified(whole[:1])
    _rule(torch.allclose(purified(whole)[:1], alone, atol=1e-5), "a batch equals its samples")
    _rule(bool(purifier.key), "the key tells what it does")


def _check_scores(detector: Detector, shape: Sequence[int]) -> None:
    for batch in (0, 1, 2, 7):
        scores = detector.score(_evidence(detector, batch, shape, 10))
        _rule(scores.shape == (batch,), "one score a sample, also for none")
        _rule(bool(torch.isfinite(scores).all()), "ordinary evidence has finite scores")
    whole, again = (_evidence(detector, 7, shape, 11) for _ in range(2))
    scores = detector.score(whole)
    _rule(torch.equal(scores, detector.score(whole)), "the same evidence has the same score")
    _rule(torch.equal(whole.x, again.x), "the input is left as it is")
    alone = torch.cat([detector.score(_rows(whole, slice(i, i + 1))) for i in range(7)])
    _rule(torch.allclose(scores, alone, rtol=1e-3, atol=1e-3), "a batch equals its samples")
    shifted = replace(
        whole,
        output=None if whole.output is None else whole.output + 3,
        views={key: view - 2 for key, view in whole.views.items()},
    )
    close = torch.allclose(detector.score(shifted), scores, rtol=1e-2, atol=1e-2)
    _rule(close, "a constant added to all logits changes nothing")
    broken = _evidence(detector, 3, shape, 12)
    broken.x[1].view(-1)[0] = torch.nan
    if broken.output is not None:
        broken.output[1, 0] = torch.nan
    finite = torch.isfinite(detector.score(broken)).tolist()
    _rule(finite == [True, False, True], "NaN gives its sample, and no other, a non-finite score")


def _check_missing(detector: Detector, shape: Sequence[int]) -> None:
    whole = _evidence(detector, 2, shape, 13)
    if detector.needs is not Need.INPUT:
        _refuses(lambda: detector.score(Evidence(whole.x)), "evidence that is missing is an error")
    if detector.needs is Need.VIEWS:
        bare = Evidence(whole.x, whole.output)
        _refuses(lambda: detector.score(bare), "views that are missing are an error")


def _check_state(detector: Detector, make: Callable[[], Detector], shape: Sequence[int]) -> None:
    state = {key: tensor.clone() for key, tensor in detector.state().items()}
    _rule(all(t.is_contiguous() for t in detector.state().values()), "the state is contiguous")
    restored = make()
    if state:
        lone = _evidence(restored, 1, shape, 14)
        _refuses(lambda: restored.score(lone), "a detector that learns is not used unfitted")
    restored.load_state(state, _CPU)
    whole = _evidence(restored, 4, shape, 14)
    same = torch.equal(restored.score(whole), detector.score(whole))
    _rule(same, "the state restores the detector")
    foreign = {"something": torch.zeros(1)}
    _refuses(lambda: make().load_state(foreign, _CPU), "a foreign state is refused")


def _evidence(detector: Detector, batch: int, shape: Sequence[int], seed: int) -> Evidence:
    """Random evidence of everything the detector needs."""
    keys = [*(view.key for view in detector.views), *map(peer_key, detector.peers)]
    answers = 4 * _random((1 + len(keys), batch, _CLASSES), 1000 + seed, torch.randn)
    chain = None
    if detector.needs is Need.HISTORY:
        chain = 10 * _random((batch, len(FEATURES)), 2000 + seed)
    return Evidence(
        _random((batch, *shape), seed), answers[0], dict(zip(keys, answers[1:], strict=True)), chain
    )


def _rows(whole: Evidence, rows: slice) -> Evidence:
    output = None if whole.output is None else whole.output[rows]
    views = {key: view[rows] for key, view in whole.views.items()}
    return Evidence(
        whole.x[rows], output, views, None if whole.chain is None else whole.chain[rows]
    )


def _random(shape: Sequence[int], seed: int, draw: Callable[..., Tensor] = torch.rand) -> Tensor:
    return draw(*shape, generator=torch.Generator().manual_seed(seed))


def _rule(holds: bool, words: str) -> None:
    if not holds:
        raise ContractBroken(f"broken: {words}")


def _refuses(work: Callable[[], object], words: str) -> None:
    try:
        work()
    except DetectorError:
        return
    raise ContractBroken(f"broken: {words}")
