from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detectors import Detector, build
from detectors.base import Evidence
from detectors.maps import Maps, Pieces

STATISTICS = ("residual", "chroma", "high_frequency", "flat_noise", "srm", "patch")


class Operations(TorchDispatchMode):
    """Counts what PyTorch is asked to do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = Counter[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.count[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def images(count: int, side: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 0.05 * torch.randn(count, 3, side, side, generator=generator)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Detector]:
    detectors = {name: build(name, {}) for name in STATISTICS}
    for detector in detectors.values():
        detector.fit({"clean": Evidence(images(80, 32)), "other": Evidence(images(80, 32, 2))})
    return detectors


def operations(detectors: list[Detector], evidence: Evidence) -> Counter[str]:
    with torch.inference_mode(), Operations() as operations:
        for detector in detectors:
            detector.score(evidence)
    return operations.count


def test_a_transform_of_the_blocks_is_made_once(fitted: dict[str, Detector]) -> None:
    chosen = [fitted[name] for name in ("chroma", "high_frequency", "flat_noise")]
    x = images(3, 32, 7)
    alone = [operations([each], Evidence(x))["bmm"] for each in chosen]
    assert alone == [3, 3, 3]  # along the rows, along the columns, into bands
    assert operations(chosen, Evidence(x))["bmm"] == 3


def test_all_share_their_maps(fitted: dict[str, Detector]) -> None:
    chosen, x = list(fitted.values()), images(3, 32, 7)
    shared = Evidence(x)
    alone = sum(operations([each], Evidence(x)).total() for each in chosen)
    together = operations(chosen, shared).total()
    assert together < 0.8 * alone
    # What is left the second time is each detector's own.
    assert operations(chosen, shared).total() < together


@pytest.mark.parametrize(("count", "side"), [(3, 32), (70, 32), (2, 224)])
def test_together_as_alone(fitted: dict[str, Detector], count: int, side: int) -> None:
    together, x = Evidence(images(count, side, 3)), images(count, side, 3)
    for detector in fitted.values():
        assert torch.equal(detector.score(together), detector.score(Evidence(x)))


def test_scores_before_do_not_stop_gradients(fitted: dict[str, Detector]) -> None:
    x = images(2, 32, 4).requires_grad_()
    evidence = Evidence(x)
    scores = {name: each.score(evidence) for name, each in fitted.items()}
    for name, each in fitted.items():
        again = each.score(evidence, gradients=True)
        torch.testing.assert_close(again.detach(), scores[name], rtol=1e-4, atol=1e-4)
        again.sum().backward()  # one graph for each pass
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)
    later = evidence.pieces.each(lambda maps: maps.of(double))
    assert later.requires_grad


def double(maps: Maps) -> Tensor:
    return 2 * maps.x


def test_two_batches_share_nothing() -> None:
    with torch.inference_mode():
        first, second = (Pieces(images(2, 8, seed)) for seed in (1, 2))
        results = [pieces.each(lambda maps: maps.of(double)) for pieces in (first, second)]
    torch.testing.assert_close(results[0], 2 * images(2, 8, 1))
    torch.testing.assert_close(results[1], 2 * images(2, 8, 2))


def test_large_batches_come_in_pieces_and_in_order() -> None:
    sizes = []

    def score(maps: Maps) -> Tensor:
        sizes.append(len(maps.x))
        return maps.x[:, 0, 0, 0]

    x = images(100, 32)
    assert torch.equal(Pieces(x).each(score), x[:, 0, 0, 0])
    assert sum(sizes) == 100
    assert max(sizes) < 100
    assert Pieces(x[:0]).each(score).shape == (0,)
