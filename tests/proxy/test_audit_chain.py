"""Lines as links of a chain."""

from __future__ import annotations

import json

import pytest

from proxy.audit_chain import FIRST, START, Chain, read, seal_of

KEY = b"k" * 32


def test_a_line_says_its_place_and_seals_the_one_before() -> None:
    chain = Chain("run", KEY)
    first = chain.link({"time": "t", "verdict": "suspicious"}, 0)
    chain.written()
    second = chain.link({"time": "t"}, 3)
    one, two = read(first), read(second)
    assert one is not None
    assert two is not None
    assert (one.run, one.seq, one.prev, one.lost) == ("run", 1, FIRST, 0)
    assert (two.run, two.seq, two.prev, two.lost) == ("run", 2, one.seal, 3)
    assert one.holds(KEY)
    assert not one.holds(b"other key of mine")
    assert list(json.loads(second)) == ["time", "run", "seq", "prev", "lost", "mac"]


def test_what_was_not_written_is_no_part_of_the_chain() -> None:
    chain = Chain("run", None)
    chain.link({"time": "t"}, 0)
    again = read(chain.link({"time": "t"}, 1))
    assert again is not None
    assert (again.seq, again.prev) == (1, FIRST)


def test_without_a_key_seals_are_digests() -> None:
    text = Chain("run", None).link({"time": "t"}, 0)
    body, _, end = text.rpartition(b', "digest": ')
    assert end == f'"{seal_of(body, None)}"}}'.encode()
    link = read(text)
    assert link is not None
    assert link.holds(None)
    assert not link.holds(KEY)  # a line without a key is no line of a log with one


@pytest.mark.parametrize("key", [None, KEY])
def test_any_byte_changed_is_seen(key: bytes | None) -> None:
    text = Chain("run", key).link({"time": "t", "score": 1.5}, 0)
    for place in range(len(text)):
        for bit in range(8):
            changed = bytearray(text)
            changed[place] ^= 1 << bit
            link = read(bytes(changed))
            assert link is None or not link.holds(key), (place, bit)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"time": "t"}',
        b'{"time": "t", "run": "r", "seq": 1}',
        b'{"run": "a b", "seq": 1, "prev": "%s", "mac": "%s"}' % (b"0" * 64, b"0" * 64),
        b'{"run": "a", "seq": true, "prev": "%s", "mac": "%s"}' % (b"0" * 64, b"0" * 64),
        b'{"run": "a", "seq": 0, "prev": "%s", "mac": "%s"}' % (b"0" * 64, b"0" * 64),
        b'{"run": "a", "seq": 1, "lost": -1, "prev": "%s", "mac": "%s"}' % (b"0" * 64, b"0" * 64),
        b'{"run": "a", "seq": 1, "prev": "%s", "mac": "%s"} ' % (b"0" * 64, b"0" * 64),
        b'[1, {"run": "a", "seq": 1, "prev": "%s", "mac": "%s"}' % (b"0" * 64, b"0" * 64),
    ],
)
def test_what_is_no_line_is_told_from_one(text: bytes) -> None:
    assert read(text) is None


def test_what_clients_choose_cannot_look_like_the_start_of_a_line() -> None:
    text = Chain("run", None).link({"time": "t", "client_id": START.decode()}, 0)
    assert text.rfind(START) == 0
