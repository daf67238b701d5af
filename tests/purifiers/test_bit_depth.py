from __future__ import annotations

import pytest
import torch

from purifiers import BitDepth, PurifierError


@pytest.mark.parametrize(
    ("bits", "value", "expected"),
    [
        (1, 0.49, 0.0),
        (1, 0.51, 1.0),
        (2, 0.3, 1 / 3),  # 0.3 * 3 = 0.9 -> level 1 of 3
        (2, 0.6, 2 / 3),  # 1.8 -> 2
        (5, 100 / 255, 12 / 31),  # 12.16 -> 12
        (8, 100 / 255, 100 / 255),
    ],
)
def test_rounds_to_the_nearest_level(bits: int, value: float, expected: float) -> None:
    out = BitDepth(bits).purify(torch.full((1, 1, 1, 1), value))
    assert out.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_and_idempotence(bits: int) -> None:
    purifier = BitDepth(bits)
    once = purifier.purify(torch.linspace(0, 1, 4096).view(1, 1, 64, 64))
    assert len(once.unique()) == 2**bits
    assert (once.min(), once.max()) == (0.0, 1.0)
    torch.testing.assert_close(purifier.purify(once), once, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [0, 9, -1, 2.5, "5"])
def test_bits_out_of_range(bits: object) -> None:
    with pytest.raises(PurifierError, match="bits must be 1 to 8"):
        BitDepth(bits)  # type: ignore[arg-type]
