"""What is found in data files made to have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from proxy.config import InputKind
from proxy.lineage import LISTED, Lineage
from tuning import dataset
from tuning.data_facts import warnings
from tuning.dataset import Dataset
from tuning.lineage import Origin, describe

FILE = Path("benign.npz")


def images(count: int, seed: int = 0) -> Tensor:
    """Blotches: unlike each other also when they are small, and not constant."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 4, 4), generator=generator)
    fine = torch.rand((count, 3, 24, 24), generator=generator)
    return 0.9 * torch.nn.functional.interpolate(coarse, size=24) + 0.1 * fine


def look(x: Tensor, y: list[int] | None = None, kind: InputKind = "image") -> Lineage:
    labels = None if y is None else np.array(y, np.int64)
    return describe(FILE, Dataset(x, labels, "ab" * 32), kind=kind)


def test_what_is_in_order_gives_no_warning() -> None:
    found = look(images(200), [i % 4 for i in range(200)])
    assert warnings(found, 150) == []
    assert (found.duplicates.count, found.near_duplicates.count, found.outliers.count) == (0, 0, 0)
    assert (found.effective, found.samples, found.shape) == (200, 200, (3, 24, 24))
    assert found.versions.keys() == {"breakwater", "torch", "numpy"}


def test_a_file_is_described_as_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "benign.npz"
    np.savez(path, x=(images(40) * 255).numpy().astype(np.uint8), y=np.arange(40) % 2)
    read = dataset.load(path)
    found = describe(path, read, origin=Origin(licence="CC BY 4.0"))
    assert (found.dtype, found.shape, found.sha256) == ("uint8", (3, 24, 24), read.sha256)
    assert (found.source, found.licence) == ("benign.npz", "CC BY 4.0")
    assert describe(path, read, origin=Origin("the north gate")).source == "the north gate"


def test_a_file_name_is_one_harmless_line() -> None:
    found = describe(Path("a\n\x1b[2J\u202e.npz"), Dataset(images(9), None, "ab"))
    assert found.source == "a  [2J .npz"


def test_copies_are_counted_and_told() -> None:
    x = images(140)
    found = look(torch.cat([x, x[:60]]))
    assert (found.duplicates.count, found.duplicates.looked_at) == (60, 200)
    assert found.duplicates.examples == tuple(range(140, 150))
    assert (found.near_duplicates.count, found.effective) == (0, 140)
    (first, second) = warnings(found, 150)
    assert "30% of the samples are copies" in first
    assert "about 140 of 200 are distinct" in first
    assert "too narrow" in first
    assert "fewer than the 150 that the wanted rate takes" in second
    assert len(warnings(found, 140)) == 1


def test_near_copies_are_counted_once_by_cluster() -> None:
    x = images(100)
    noisy = [(x[:50] + 0.02 * torch.rand(50, 3, 24, 24)).clamp(0, 1) for _ in range(3)]
    found = look(torch.cat([x, *noisy]))
    assert found.duplicates.count == 0
    assert found.near_duplicates.count == 200
    assert found.effective == 100
    assert "80% of the others nearly" in warnings(found)[0]


def test_many_samples_are_judged_by_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.lineage._ASKED", 120)
    monkeypatch.setattr("tuning.lineage._AGAINST", 380)
    x = images(200)
    found = look(torch.cat([x, (x + 0.02).clamp(0, 1)]))
    assert found.near_duplicates.looked_at == 120
    assert "120 samples drawn at random against 380" in found.near_duplicates.how
    assert found.near_duplicates.share > 0.85
    assert 200 <= found.effective < 230
    assert all(0 <= place < 400 for place in found.near_duplicates.examples)


def test_odd_samples_are_named() -> None:
    x = images(200)
    x[17] = 0
    x[23, :, :, ::2], x[23, :, :, 1::2] = 0, 1
    found = look(x)
    assert set(found.outliers.examples) == {17, 23}
    assert (found.constant.count, found.constant.examples) == (1, (17,))
    assert "1 samples are constant, e.g. 17" in warnings(found)[0]
    x[30:40] = 1
    assert any("unlike the others" in text for text in warnings(look(x)))


def test_one_giant_hides_no_other() -> None:
    rows = torch.randn((300, 6), generator=torch.Generator().manual_seed(1))
    rows[3], rows[4] = 1e30, 100
    assert look(rows, kind="vector").outliers.examples == (3, 4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_nothing_but_one_constant_image(value: float) -> None:
    found = look(torch.full((50, 1, 8, 8), value))
    assert (found.duplicates.count, found.constant.count, found.effective) == (49, 50, 1)
    assert (found.near_duplicates.looked_at, found.near_duplicates.count) == (1, 0)
    assert found.outliers.count == 0
    assert "about 1 of 50 are distinct" in warnings(found)[0]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 1, 1, 1), "image"),
        ((2, 3, 1, 5), "image"),
        ((1, 1, 1), "waveform"),
        ((3, 2, 7), "waveform"),
        ((1, 1), "vector"),
        ((4, 3), "vector"),
    ],
)
def test_tiny_files(shape: tuple[int, ...], kind: InputKind) -> None:
    found = look(torch.rand(shape, generator=torch.Generator().manual_seed(2)), kind=kind)
    assert found.samples == shape[0]
    assert 1 <= found.effective <= shape[0]
    assert Lineage.model_validate_json(found.model_dump_json()) == found


def test_waveforms() -> None:
    generator = torch.Generator().manual_seed(3)
    loud = torch.rand((60, 1, 30), generator=generator).repeat_interleave(40, 2)
    waves = loud * torch.randn((60, 1, 1200), generator=generator).clamp(-1, 1) * 0.3
    found = look(torch.cat([waves, waves[:10] * 0.5, torch.zeros(1, 1, 1200)]), kind="waveform")
    assert found.duplicates.count == 0
    assert found.near_duplicates.count == 20  # a copy half as loud is a copy
    assert found.effective == 61
    assert found.outliers.examples[:1] == found.constant.examples == (70,)


def test_vectors_are_compared_in_their_own_units() -> None:
    scales = torch.tensor([1e-3, 1.0, 1e4])
    rows = torch.randn((100, 3), generator=torch.Generator().manual_seed(4)) * scales
    found = look(torch.cat([rows, rows[:20] + 0.001 * scales]), kind="vector")
    assert found.near_duplicates.count >= 40
    assert 90 <= found.effective <= 100
    assert look(torch.cat([rows, rows + 0.5 * scales]), kind="vector").effective > 150


def test_classes() -> None:
    found = look(images(120), [0] * 110 + [7] * 10)
    assert found.classes is not None
    assert (found.classes.count, found.classes.smallest, found.classes.largest) == (2, 10, 110)
    assert found.classes.samples == {"0": 110, "7": 10}
    assert 1 < found.classes.effective < 1.5
    assert "classes are unequal: 10 to 110 samples" in warnings(found)[0]
    assert look(images(9)).classes is None
    many = look(torch.rand(300, 4), list(range(300)), "vector").classes
    assert many is not None
    assert (many.count, len(many.samples), round(many.effective)) == (300, LISTED, 300)


def test_the_same_file_is_described_alike() -> None:
    x = images(100)
    assert look(x).model_dump(exclude={"date"}) == look(x).model_dump(exclude={"date"})
