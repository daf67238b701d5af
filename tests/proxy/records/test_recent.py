"""The ring of notable records: order, bounds, labels."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from proxy.records.recent import Recent
from proxy.records.record import Record, record_of
from tests.proxy.records.flows import suspicious


def record(i: int, **fields: str) -> Record:
    return record_of(suspicious(id_=f"r{i}", **fields), 0, float(i))


def ids(recent: Recent, **options: object) -> list[str]:
    chosen = {"model": None, "limit": 100, "before": None, **options}
    return [each.id for each in recent.newest(**chosen)]  # type: ignore[arg-type]


def test_newest_first_so_many_at_most() -> None:
    recent = Recent(3)
    for i in range(5):
        recent.add(record(i))
    assert ids(recent) == ["r4:0", "r3:0", "r2:0"]
    assert ids(recent, limit=1) == ["r4:0"]
    assert ids(recent, before=4.0) == ["r3:0", "r2:0"]
    assert ids(recent, model="vit") == ids(recent, limit=0) == []


def test_of_the_same_moment_the_last_first() -> None:
    recent = Recent(3)
    for i in range(3):
        recent.add(replace(record(i), time_s=1.0))
    assert ids(recent) == ["r2:0", "r1:0", "r0:0"]


def test_labelled_ones_stay_but_leave_room() -> None:
    recent = Recent(4)
    for i in range(4):
        recent.add(record(i))
    for i in range(4):
        assert recent.label(f"r{i}:0", "benign") is not None
    assert ids(recent) == ["r3:0", "r2:0"]  # half of the room
    for i in range(4, 9):
        recent.add(record(i))
    assert ids(recent) == ["r8:0", "r7:0", "r3:0", "r2:0"]
    taken_back = recent.label("r2:0", "")
    assert taken_back is not None
    assert taken_back.label == ""
    recent.add(record(9))
    recent.add(record(10))
    assert len(recent) == 4


def test_unknown_ids_are_told() -> None:
    recent = Recent(4)
    recent.add(record(0))
    for odd in ("", "r0", "r0:1", "\x00", "r0:0 "):
        assert recent.label(odd, "benign") is None


def test_what_comes_again_keeps_what_was_noted() -> None:
    recent = Recent(4)
    recent.add(replace(record(0), shadow="pass"))
    recent.label("r0:0", "adversarial")
    recent.add(replace(record(0), outcome="blocked"))
    found = recent.find("r0:0")
    assert found is not None
    assert (found.shadow, found.label, found.outcome) == ("pass", "adversarial", "blocked")
    assert len(recent) == 1


def test_one_client_cannot_push_out_the_others() -> None:
    recent = Recent(6)
    recent.add(record(0, principal="eve"))
    recent.add(record(1, principal="alice"))
    for i in range(2, 1000):
        recent.add(record(i, principal="mallory"))
    assert ids(recent) == ["r999:0", "r998:0", "r997:0", "r996:0", "r1:0", "r0:0"]
    for i in range(1000, 1006):
        recent.add(record(i, principal=f"p{i}"))
    assert ids(recent) == [f"r{i}:0" for i in range(1005, 999, -1)]


def test_what_is_labelled_stays_however_much_its_client_sends() -> None:
    recent = Recent(4)
    for i in range(2):
        recent.add(record(i, principal="mallory"))
    recent.label("r0:0", "adversarial")
    recent.add(record(2, principal="alice"))
    for i in range(3, 50):
        recent.add(record(i, principal="mallory"))
    assert ids(recent) == ["r49:0", "r48:0", "r2:0", "r0:0"]


def test_whoever_sends_what_the_counts_are_right() -> None:
    generator = random.Random(0)
    recent = Recent(8)
    for i in range(3000):
        kind = generator.random()
        if kind < 0.8:
            recent.add(record(i, principal=generator.choice("abcde")))
        else:
            label = generator.choice(("", "benign"))
            recent.label(f"r{max(0, i - generator.randrange(20))}:0", label)  # type: ignore[arg-type]
        held = Counter(each.principal for each in recent._plain.values())
        assert recent._held == held
        assert recent._most == max(held.values(), default=0)
        assert len(recent) <= 8
