"""The content of a captured request's file."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime

import pytest

from proxy.capture.files import facts, pack, unpack
from proxy.flow import Action, Flow, SampleVerdict, Verdict

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SUSPECT = SampleVerdict(
    Verdict.SUSPICIOUS, 3.0, math.inf, {"grid": 0.001}, "grid", scores={"grid": 9}
)


def flow() -> Flow:
    return Flow(
        "r1", 0.0, None, "alice", model="cnn", version="2", client_id="token-like",
        samples=(SUSPECT,), action=Action.BLOCK, outcome="blocked",
    )  # fmt: skip


def packed() -> bytes:
    return pack(
        facts(NOON, flow(), principal="ab", calibration="d"), b"request", "full", b"request"
    )


def test_facts_say_what_was_decided_and_not_by_whom() -> None:
    found = unpack(packed())
    assert found.payload == b"request"
    assert found.kind == "full"
    assert found.facts["request_sha256"] == hashlib.sha256(b"request").hexdigest()
    assert found.facts["samples"] == [
        {
            "index": 0,
            "verdict": "suspicious",
            "score": 3.0,
            "threshold": None,
            "scores": {"grid": 9.0},
            "p_values": {"grid": 0.001},
            "reason": "grid",
            "alarm": False,
        }
    ]
    assert found.facts["action"] == "block"
    assert found.facts["calibration"] == "d"
    assert b"alice" not in packed()
    assert b"token-like" not in packed()


def test_any_cut_and_any_changed_byte_of_the_payload_is_seen() -> None:
    content = packed()
    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"captured|cut off"):
            unpack(content[:end])
    for place in range(content.index(b"\n") + 1, len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(ValueError, match="digest"):
            unpack(bytes(changed))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG",
        b"[]\n",
        b"{}\n",
        b"[" * 200_000,
        b" " * 2_000_000,
        json.dumps({"format": "breakwater capture 1"}).encode(),
        json.dumps({"format": "breakwater capture 1", "model": 3, "payload": "full"}).encode(),
        json.dumps({"format": "breakwater capture 1", "model": "m", "payload": []}).encode(),
    ],
)
def test_foreign_files_are_told(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a captured request"):
        unpack(content)
