from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectors import chains
from proxy.history.fingerprints import CONTENT, KEYS, PERCEPTUAL, Fingerprinter, Prints
from proxy.history.linking import Linked, link
from proxy.history.store import Found
from tests.detectors.test_perceptual_fingerprint import pictures

X = pictures(4, 3, 32, seed=0)
FINGERPRINT = Fingerprinter(b"s" * 32, lambda: (b"a" * 32,))
OWNER = 7


def prints(x: Tensor, *, anomaly: float = 0.0) -> Prints:
    return FINGERPRINT(x, torch.full((len(x),), anomaly)).of(OWNER)


def noisy(x: Tensor, seed: int, levels: float = 1.0) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x + levels / 255 * noise).clamp(0, 1)


def found(rows: list[int], records: npt.NDArray[np.void], keys: list[range] | None = None) -> Found:
    """Earlier queries for rows, each with these keys in common; with those of content else."""
    keys = keys or [range(CONTENT)] * len(rows)
    shared = np.array([sum(1 << key for key in each) for each in keys], np.uint64)
    return Found(np.array(rows, np.intp), shared, records, np.zeros(max(rows, default=0) + 1))


def linked(x: Tensor, *earlier: Found, now: float = 100.0, owner: int = OWNER) -> Linked:
    return link(prints(x), owner=owner, now=now, found=earlier)


def lengths(links: Linked) -> list[int]:
    return [int(length) for length in links.records["length"]]


def test_unlike_samples_begin_chains_of_their_own() -> None:
    links = linked(X, found([], np.zeros(0, chains.RECORD)))
    assert lengths(links) == [1, 1, 1, 1]
    assert not links.repeats.any()
    assert (links.records["owner"] == OWNER).all()
    assert (links.records["time"] == 100.0).all()


def test_each_sample_follows_on_its_own_past() -> None:
    past = linked(X, now=50.0).records
    links = linked(noisy(X, 1), found([1, 3], past[[1, 3]]))
    assert lengths(links) == [1, 2, 1, 2]
    assert links.records["since"].tolist() == [100, 50, 100, 50]


def test_near_identical_samples_of_one_request_are_a_chain() -> None:
    x = torch.cat([X[:1], noisy(X[:1], 1), X[1:2], noisy(X[:1], 2), noisy(X[1:2], 3)])
    assert lengths(linked(x)) == [1, 2, 1, 3, 2]


def test_a_chain_goes_on_through_a_request() -> None:
    past = linked(torch.cat([noisy(X[:1], seed) for seed in range(5)])).records
    assert past[-1]["length"] == 5
    x = torch.cat([noisy(X[:1], 11), noisy(X[:1], 12)])
    assert lengths(linked(x, found([0, 1], past[[4, 4]]))) == [6, 7]


def test_exact_repeats_change_nothing() -> None:
    past = linked(torch.cat([X[:1], noisy(X[:1], 1)]), now=50.0).records
    links = linked(torch.cat([X[:1], X[:1], X[1:2], X[1:2]]), found([0, 1], past[[0, 0]]))
    assert links.repeats.tolist() == [True, True, False, True]
    assert links.records[0] == links.records[1] == past[0]
    assert links.records[3] == links.records[2]
    assert lengths(links) == [1, 1, 1, 1]


def test_a_repeat_in_a_request_is_not_counted_twice_by_what_comes_after() -> None:
    x = torch.cat([X[:1], X[:1], X[:1], noisy(X[:1], 1)])
    assert lengths(linked(x)) == [1, 1, 1, 2]


def test_one_query_found_in_two_stores_counts_once() -> None:
    steps = [noisy(X[:1], seed, 0.5) for seed in range(3)]
    past = linked(torch.cat([X[:1], *steps]), now=50.0).records
    once, again = found([0, 0], past[2:]), found([0, 0], past[2:][::-1])
    x = noisy(X[:1], 9)
    assert linked(x, once, again).records[0] == linked(x, once).records[0]


def test_what_one_store_knows_as_alike_is_alike() -> None:
    """An older salt's keys may show what the newer one's do not."""
    past = linked(X[:1]).records
    far = X[1:2]
    unlike, alike = found([0], past, [range(1)]), found([0], past, [range(CONTENT)])
    assert lengths(linked(far, unlike)) == [1]
    for stores in ((unlike, alike), (alike, unlike)):
        assert lengths(linked(far, *stores)) == [2]


def test_keys_count_by_their_kind() -> None:
    past = linked(X[:1]).records
    for keys, length in (
        (range(2), 1),
        (range(3), 2),
        (range(CONTENT, CONTENT + 1), 1),
        (range(CONTENT, CONTENT + 2), 2),
        (range(CONTENT + PERCEPTUAL, KEYS), 1),  # the owner's is none of them
    ):
        assert lengths(linked(X[1:2], found([0], past, [keys]))) == [length]


def test_near_is_alike_whatever_keys_are_shared() -> None:
    past = linked(X[:1]).records
    owner_only = [range(CONTENT + PERCEPTUAL, KEYS)]
    assert lengths(linked(noisy(X[:1], 1, 8.0), found([0], past, owner_only))) == [2]


def test_another_owner_goes_on_with_the_chain_and_is_counted() -> None:
    past = linked(X[:1]).records
    links = linked(noisy(X[:1], 1), found([0], past), owner=8)
    assert (links.records[0]["length"], links.records[0]["owners"]) == (2, 2)


def test_the_first_step_of_a_search_links_its_ends() -> None:
    ends = linked(X[:2]).records
    middle = X[:2].mean(0, keepdim=True)
    owner_only = [range(CONTENT + PERCEPTUAL, KEYS)] * 2
    assert lengths(linked(middle, found([0, 0], ends, owner_only))) == [2]
    assert lengths(linked(middle + 0.2 * (X[2:3] - 0.5), found([0, 0], ends, owner_only))) == [1]


def test_keys_that_are_not_used_are_not_shared() -> None:
    bare = replace(prints(X), keys=np.zeros((1, 4, KEYS), np.uint64))
    assert lengths(link(bare, owner=OWNER, now=1.0, found=())) == [1, 1, 1, 1]


def test_anomalies_are_remembered_with_the_query() -> None:
    links = link(prints(X[:2], anomaly=3.0), owner=OWNER, now=1.0, found=())
    assert links.records["strangest"].tolist() == [3.0, 3.0]


def test_no_samples_have_no_records() -> None:
    links = linked(X[:0], found([], np.zeros(0, chains.RECORD)))
    assert len(links.records) == len(links.repeats) == 0
