from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import History
from proxy.errors import ConfigError
from proxy.history.salts import Salts
from tests.proxy.history.queries import Clock

HOUR_S = 3600.0


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "history.key"
    file.write_text("0123456789abcdef0123456789abcdef\n")
    return file


def salts(key_file: Path | None, clock: Clock | None = None) -> Salts:
    cfg = History(key_file=key_file, rotate_hours=2.0, ttl_minutes=30.0)
    return Salts(cfg, clock or Clock())


def test_two_replicas_with_one_key_file_agree(key_file: Path) -> None:
    a, b = salts(key_file), salts(key_file)
    assert a.name == b.name
    assert a.of("resnet") == b.of("resnet")
    assert a.steady("resnet") == b.steady("resnet")
    assert a.owner("resnet", "10.0.0.1") == b.owner("resnet", "10.0.0.1")


def test_others_do_not(key_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_text("another secret of sufficient length")
    every = [salts(key_file), salts(other), salts(None), salts(None)]
    assert len({each.name for each in every}) == 4
    assert len({each.of("resnet") for each in every}) == 4
    assert len({each.steady("resnet") for each in every}) == 4
    assert len({each.owner("resnet", "10.0.0.1") for each in every}) == 4


def test_epochs_overlap_for_as_long_as_queries_are_remembered(key_file: Path) -> None:
    clock = Clock(2 * HOUR_S * 1000)
    subject = salts(key_file, clock)
    first, before = subject.of("resnet")
    clock.now += 0.5 * HOUR_S - 1
    assert subject.of("resnet") == (first, before)
    clock.now += 1
    assert subject.of("resnet") == (first,)
    clock.now += 1.5 * HOUR_S
    second, last = subject.of("resnet")
    assert last == first
    assert second not in (first, before)


def test_each_model_has_keys_of_its_own(key_file: Path) -> None:
    subject = salts(key_file)
    keys = [key for model in ("a", "b") for key in (*subject.of(model), subject.steady(model))] + [
        subject.name.encode()
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) >= 16 for key in keys)


def test_sketches_stay_comparable_from_one_epoch_to_the_next(key_file: Path) -> None:
    clock = Clock()
    subject = salts(key_file, clock)
    steady, owner = subject.steady("resnet"), subject.owner("resnet", "alice")
    clock.now += 100 * HOUR_S
    assert subject.steady("resnet") == steady
    assert subject.owner("resnet", "alice") == owner


def test_owners_are_known_within_one_model_only(key_file: Path) -> None:
    subject = salts(key_file)
    pairs = [("a", "bc"), ("ab", "c"), ("a", "b"), ("b", "bc"), ("", "abc"), ("abc", "")]
    owners = {subject.owner(model, principal) for model, principal in pairs}
    assert len(owners) == len(pairs)
    assert all(0 <= owner < 2**64 for owner in owners)


def test_a_key_file_that_is_no_secret_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "short"
    file.write_text("short")
    with pytest.raises(ConfigError, match=r"history\.key_file: .*at least 16"):
        salts(file)
