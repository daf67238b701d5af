from __future__ import annotations

import hashlib
import hmac

import torch

from detectors.salted import drawn, in_parts, levels, mixed

KEY = b"a secret of twenty-four bytes"[:24]


def test_draws_are_those_of_the_published_functions() -> None:
    seed = hmac.new(KEY, b"offsets", hashlib.sha256).digest()
    stream = hashlib.shake_256(seed).digest(80)
    expected = [int.from_bytes(stream[i : i + 8], "little", signed=True) for i in range(0, 80, 8)]
    assert drawn(KEY, "offsets", 10).tolist() == expected
    assert drawn(KEY, "offsets", 0).shape == (0,)


def test_keys_and_purposes_share_nothing() -> None:
    draws = [drawn(KEY, "a", 100), drawn(KEY, "b", 100), drawn(KEY[1:], "a", 100)]
    assert torch.cat(draws).unique().numel() == 300


def test_draws_use_every_bit_evenly() -> None:
    numbers = drawn(KEY, "bits", 20_000)
    for bit in range(64):
        ones = ((numbers >> bit) & 1).double().mean().item()
        assert abs(ones - 0.5) < 0.02  # over five standard errors of a fair coin


def splitmix(state: int) -> int:
    """SplitMix64's finaliser in plain integers."""
    whole = 2**64 - 1
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & whole
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & whole
    return state ^ (state >> 31)


def test_mixes_as_splitmix_does() -> None:
    numbers = torch.cat((torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)]), drawn(KEY, "mix", 200)))
    expected = [splitmix(number % 2**64) for number in numbers.tolist()]
    assert [number % 2**64 for number in mixed(numbers).tolist()] == expected
    assert expected[0] == 0


def test_one_bit_changes_half_of_all() -> None:
    numbers = drawn(KEY, "avalanche", 200)
    for bit in range(0, 64, 7):
        changed = mixed(numbers) ^ mixed(numbers ^ (1 << bit))
        flips = sum(number.bit_count() for number in (n % 2**64 for n in changed.tolist()))
        assert abs(flips / len(numbers) - 32) < 2


def test_levels_are_those_of_8_bits() -> None:
    x = torch.tensor([0, 1, 0.5, 127.4 / 255, -3, 7, float("nan"), float("inf"), float("-inf")])
    assert levels(x).tolist() == [0, 255, 128, 127, 0, 255, 0, 255, 0]
    assert levels(torch.arange(256) / 255).tolist() == list(range(256))


def test_parts_make_the_whole() -> None:
    x = torch.rand(11, 2, 3, generator=torch.Generator().manual_seed(1))
    sizes: list[int] = []

    def doubled(piece: torch.Tensor) -> torch.Tensor:
        sizes.append(len(piece))
        return 2 * piece

    assert torch.equal(in_parts(doubled, x, 24), 2 * x)
    assert sizes == [4, 4, 3]
    assert torch.equal(in_parts(doubled, x, 1), 2 * x)
    assert in_parts(doubled, x[:0], 24).shape == (0, 2, 3)
