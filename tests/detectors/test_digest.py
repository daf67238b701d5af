from __future__ import annotations

import torch

from detectors.digest import Digest
from detectors.salted import drawn, mixed

KEY = b"0123456789abcdef"
X = torch.rand(40, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def by_hand(x: torch.Tensor) -> int:
    """The digest of one input in plain integers."""
    words = x.flatten().view(torch.int32).tolist()
    factors = [factor | 1 for factor in drawn(KEY, f"digest/{len(words)}", len(words)).tolist()]
    total = sum(word * factor for word, factor in zip(words, factors, strict=True))
    signed = (total + 2**63) % 2**64 - 2**63
    return int(mixed(torch.tensor(signed)))


def test_it_is_the_sum_of_products() -> None:
    assert Digest(KEY)(X).tolist() == [by_hand(x) for x in X]


def test_identical_inputs_have_the_same_whatever_their_company_and_layout() -> None:
    digest = Digest(KEY)
    whole = digest(X)
    assert torch.equal(torch.cat([digest(X[i : i + 1].clone()) for i in range(len(X))]), whole)
    assert torch.equal(digest(X.contiguous(memory_format=torch.channels_last)), whole)
    assert torch.equal(Digest(KEY)(X), whole)
    assert digest(X[:0]).shape == (0,)


def test_one_bit_makes_another_digest() -> None:
    digest = Digest(KEY)
    bits = X[:1].flatten(1).view(torch.int32)
    changed = bits.repeat(32 * 5, 1)
    for row in range(len(changed)):
        changed[row, 37 * (row // 32)] ^= 1 << row % 32 if row % 32 < 31 else -(2**31)
    found = digest(torch.cat((bits, changed)).view(torch.float32).view(-1, 3, 9, 7))
    assert found.unique().numel() == 1 + 32 * 5


def test_places_and_keys_count() -> None:
    assert Digest(KEY)(X[:1].flip(3)) != Digest(KEY)(X[:1])
    assert Digest(KEY[1:] + b"x")(X[:1]) != Digest(KEY)(X[:1])


def test_bits_are_even() -> None:
    found = Digest(KEY)(torch.arange(4000.0).view(4000, 1, 1, 1))
    for bit in range(64):
        assert abs(((found >> bit) & 1).double().mean() - 0.5) < 0.05
