from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from detectors.chains import (
    FEATURES,
    NEWCOMER,
    NO_LABEL,
    RECORD,
    Query,
    answered,
    begin,
    features,
    follow,
    linked,
    searched,
)
from detectors.digest import Digest
from detectors.sketch import Sketcher
from detectors.steps import MOST
from tests.detectors.test_scenes import picture

KEY = b"0123456789abcdef"
SKETCHER, DIGEST = Sketcher(KEY), Digest(KEY)
Records = npt.NDArray[np.void]


def query(x: Tensor, time: float = 0.0, anomaly: float = 0.0, owner: int = 1) -> Query:
    sketch, digest = SKETCHER(x[None])[0].numpy(), int(DIGEST(x[None])) % 2**64
    return Query(sketch, digest, owner, anomaly, time)


def asked(frames: list[Tensor], **options: float) -> Records:
    """The records of a series that is remembered, each query following on the latest."""
    records: list[Records] = []
    for time, x in enumerate(frames):
        each = query(x, time=float(time), anomaly=options.get("anomaly", 0.0))
        records.append(follow(each, np.stack(records[-MOST:])) if records else begin(each))
    return np.stack(records)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def binary_search(steps: int = 8) -> list[Tensor]:
    """Between an image and noise, to a boundary at 0.3 of the way."""
    x, other = picture(), noise(3, 32, 32, seed=5).mul(0.2).add(0.5).clamp(0, 1)
    low, high = 0.0, 1.0
    frames = [x, other]
    for _ in range(steps):
        middle = (low + high) / 2
        frames.append(torch.lerp(x, other, middle))
        low, high = (low, middle) if middle > 0.3 else (middle, high)
    return frames


def mirrored(pairs: int = 6, scale: float = 0.01) -> list[Tensor]:
    """An image, and samples on both sides of it, as NES asks them."""
    x = picture()
    frames = [x]
    for seed in range(pairs):
        step = scale * noise(3, 32, 32, seed=seed)
        frames += [x + step, x - step]
    return frames


def strides(steps: int = 6) -> list[Tensor]:
    """From an image towards noise, each stride half as long as the last, on or back."""
    x, other = picture(), noise(3, 32, 32, seed=5).mul(0.2).add(0.5).clamp(0, 1)
    at, stride = 0.0, 0.5
    frames = [x]
    for step in range(steps):
        at += stride if step % 3 < 2 else -stride
        stride /= 2
        frames.append(torch.lerp(x, other, at))
    return frames


def ticking(count: int = 20) -> list[Tensor]:
    """A still scene with noise in two places, as of digits that come back."""
    frames = []
    for i in range(count):
        frame = picture()
        for digit, place in ((i % 2, 0), (i // 2 % 2, 24)):
            frame[:, :4, place : place + 4] += 0.2 * noise(3, 4, 4, seed=10 * place + digit)
        frames.append(frame)
    return frames


def grainy(count: int = 20) -> list[Tensor]:
    return [(picture() + noise(3, 32, 32, seed=seed) / 255) for seed in range(count)]


def fading(count: int = 20) -> list[Tensor]:
    return [torch.lerp(picture(), picture().flip(2), i / count) for i in range(count)]


def pacing(count: int = 20) -> list[Tensor]:
    return [picture(3, 32, 80)[:, :, i : i + 32] for i in range(count)]


def of(record: Records, *names: str) -> list[float]:
    return [record[name].item() for name in names]


def test_a_record_has_no_gaps() -> None:
    assert RECORD.names is not None
    assert RECORD.itemsize == sum(RECORD[name].itemsize for name in RECORD.names) <= 180
    assert set(FEATURES) <= set(RECORD.names)


def test_the_first_of_a_chain_has_no_past() -> None:
    record = begin(query(picture(), time=7.0, anomaly=3.0, owner=2**64 - 1))
    assert of(record, "length", "owners", "label") == [1, 1, NO_LABEL]
    assert of(record, "time", "since") == [7.0, 7.0]
    assert record["owner"] == 2**64 - 1
    assert of(record, "strangest", "anomaly") == [3.0, 3.0]
    assert not features(record[None]).any()


def test_what_follows_carries_the_statistics_on() -> None:
    first = begin(query(picture(), time=1.0, anomaly=3.0))
    record = follow(query(picture() * 0.99, time=2.0, anomaly=1.0), first[None])
    assert of(record, "length", "owners") == [2, 1]
    assert of(record, "time", "since") == [2.0, 1.0]
    assert of(record, "strangest", "anomaly") == pytest.approx([3.0, (1 + 0.9 * 3) / 1.9])
    found = dict(zip(FEATURES, features(record[None])[0].tolist(), strict=True))
    assert found["strangest"] == 3.0
    assert found["length"] == 2.0


def test_a_steady_anomaly_is_its_own_mean() -> None:
    records = asked(grainy(30), anomaly=2.5)
    np.testing.assert_allclose(records["anomaly"], 2.5, rtol=1e-5)
    assert records["length"].tolist() == list(range(1, 31))


@pytest.mark.parametrize(
    ("anomaly", "counted"), [(-3.0, 0.0), (1e9, 20.0), (float("nan"), 0.0), (float("inf"), 20.0)]
)
def test_anomalies_are_bounded(anomaly: float, counted: float) -> None:
    record = begin(query(picture(), anomaly=anomaly))
    assert record["strangest"] == record["anomaly"] == counted


def test_the_longest_chain_goes_on() -> None:
    short, long = asked(grainy(2)), asked(grainy(9))
    record = follow(query(picture(), time=50.0), np.concatenate((long[-1:], short[-1:])))
    assert record["length"] == 10


def test_an_exact_repeat_changes_nothing() -> None:
    records = asked(grainy(5))
    again = follow(query(grainy(5)[2], time=99.0, anomaly=20.0), records)
    assert again == records[2]
    again["length"] = 77  # a copy
    assert records[2]["length"] == 3


def test_what_resembles_is_linked() -> None:
    x = picture()
    records = np.stack([begin(query(x)), begin(query(x.flip(2)))])
    none = np.zeros((2, 2), np.intp)
    near = x + 8 / 255 * noise(3, 32, 32, seed=1).sign()
    assert linked(query(near).sketch, records, none).tolist() == [True, False]
    far = (1 - x).roll(9, 2)
    assert not linked(query(far).sketch, records, none).any()
    for keys, expected in (((3, 0), True), ((2, 1), False), ((0, 2), True)):
        assert linked(query(far).sketch, records, np.array([keys, (0, 0)]))[0] == expected


def test_a_binary_search_is_counted() -> None:
    halving = asked(binary_search())["halving"]
    assert halving[:3].tolist() == [0, 0, 0]
    assert halving[-1] >= 5
    assert (np.diff(halving) >= -0.5).all()


def test_half_steps_count_in_either_direction() -> None:
    halving = asked(strides())["halving"]
    assert halving[:2].tolist() == [0, 0]
    assert halving[-1] >= 4


def test_the_first_step_of_a_search_follows_on_both_ends() -> None:
    x, other, middle, *_ = binary_search()
    others = np.stack([begin(query(each)) for each in (picture().flip(2), x, other)])
    assert searched(query(middle), others).tolist() == [False, True, True]
    assert searched(query(middle), others[:2]).tolist() == [False, False]
    assert not searched(query(x), others[:0]).size


def test_what_else_the_principal_asked_counts_for_a_search() -> None:
    x, other, middle, quarter, *_ = binary_search()
    ends = np.stack([begin(query(x)), begin(query(other, time=1.0))])
    second = follow(query(middle, time=2.0), ends)
    third = query(quarter, time=3.0)
    assert follow(third, second[None])["halving"] == 0
    assert follow(third, second[None], ends)["halving"] == 1


def test_mirrored_samples_are_counted() -> None:
    corners = asked(mirrored())["mirrored"]
    assert corners[:4].tolist() == [0, 0, 0, 0]
    assert corners[-1] > 2


@pytest.mark.parametrize("series", [grainy, fading, pacing, ticking])
def test_cameras_fades_and_clocks_are_no_searches(series: Callable[[], list[Tensor]]) -> None:
    table = dict(zip(FEATURES, features(asked(series())).T, strict=True))
    assert table["halving"].max() <= 1
    assert table["mirrored"].max() == 0


def test_changes_of_class_are_counted() -> None:
    records = asked(grainy(2))
    for label, flips in ((4, 0.0), (4, 0.0), (5, 1.0), (5, 0.9), (4, 1.81)):
        answered(records[1:][0], label)
        assert of(records[1], "label", "origin") == [label, 4]
        assert records[1]["flips"] == pytest.approx(flips)
    following = follow(query(picture(), time=9.0), records)
    assert of(following, "label", "origin") == [4, 4]
    assert following["flips"] == records[1]["flips"]


def test_owners_are_counted_up_to_a_bound() -> None:
    last = asked(grainy(3))[-1]
    last["owners"] = 65_535
    record = follow(query(picture(), time=9.0, owner=5), last[None])
    assert record["owners"] == 65_535


def test_lone_queries_are_no_evidence() -> None:
    records = np.concatenate((asked(grainy(3), anomaly=2.0), begin(query(picture()))[None]))
    table = features(records)
    assert table.shape == (4, len(FEATURES))
    assert table.dtype == np.float32
    assert table.any(axis=1).tolist() == [False, True, True, False]
    assert features(records[:0]).shape == (0, len(FEATURES))


def test_who_continues_what_others_began_answers_for_what_he_adds() -> None:
    theirs = asked(grainy(12), anomaly=9.0)
    innocent = follow(query(grainy(13)[-1], time=20.0, anomaly=1.0, owner=4), theirs[-8:])
    assert of(innocent, "length", "owners", "blame") == [13, 2, 0]
    assert innocent["strangest"] == 1.0
    assert features(innocent[None])[0].tolist() == [0, 0, 0, 0, 0, 13]
    accomplice = follow(query(grainy(13)[-1], time=20.0, anomaly=8.0, owner=4), theirs[-8:])
    found = dict(zip(FEATURES, features(accomplice[None])[0].tolist(), strict=True))
    assert found["anomaly"] > 8
    newcomer = follow(
        query(grainy(13)[-1], time=20.0, anomaly=1.0, owner=4), theirs[-8:], newcomer=True
    )
    assert newcomer["blame"] == NEWCOMER
    assert features(newcomer[None])[0, FEATURES.index("anomaly")] > 7
    later = follow(query(grainy(14)[-1], time=21.0, anomaly=1.0, owner=4), newcomer[None])
    assert later["blame"] == 0  # for once
    again = follow(query(grainy(14)[-1], time=21.0, anomaly=1.0, owner=4), innocent[None])
    assert again["blame"] == 0


def test_somebody_elses_query_is_no_retry_of_ones_own() -> None:
    theirs = asked(grainy(5), anomaly=9.0)
    record = follow(query(grainy(5)[2], time=99.0, owner=4), theirs)
    assert of(record, "blame", "origin") == [0, NO_LABEL]


def test_the_class_a_chain_began_with_is_its_principals() -> None:
    record = begin(query(picture()))
    answered(record, 40_000)  # more classes than 16 bits hold
    mine = follow(query(picture() * 0.99, time=2.0), record[None])
    yours = follow(query(picture() * 0.99, time=2.0, owner=9), record[None])
    assert of(mine, "origin", "label") == [40_000, 40_000]
    assert yours["origin"] == NO_LABEL


@pytest.mark.parametrize("level", [0.25, 2.5])
def test_mirrored_noise_is_known_although_all_of_the_noise_comes_first(level: float) -> None:
    noise = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * level / 255
    images = torch.cat((picture() + noise, picture() - noise)).clamp(0, 1)
    sketches = Sketcher(KEY)(images).numpy()
    records: list[np.ndarray] = []
    for i, x in enumerate(images):
        each = query(x, time=float(i))
        record = begin(each)
        if records:
            record = follow(each, np.stack(records[-MOST:]), None, sketches[:i])
        records.append(record)
    mirrored = [float(record["mirrored"]) for record in records]
    assert max(mirrored[:21]) < 0.95
    assert max(mirrored[:30]) > 0.95


def test_the_strangest_of_ones_own_counts_whatever_chain_it_is_in() -> None:
    long = asked(grainy(9))
    odd = begin(query(picture() * 0.98, time=3.5, anomaly=12.0))
    record = follow(query(picture(), time=50.0), np.concatenate((long[-2:], odd[None])))
    assert record["length"] == 10
    assert record["strangest"] == 12.0
    theirs = begin(query(picture() * 0.98, time=3.5, anomaly=12.0, owner=9))
    record = follow(query(picture(), time=50.0), np.concatenate((long[-2:], theirs[None])))
    assert record["strangest"] == 0.0
