"""Lines of the audit log as links of a chain: each says its place and seals the one before it.

Every run of a process has a chain of its own, so that several may append to one file. Knows
neither files nor requests.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST = "0" * 64
"""What the first line of a chain has in place of the seal before it."""
START = b'{"time": "'
"""How each line starts; nowhere else in a line, since quotation marks in texts are escaped."""

_END = re.compile(rb', "(mac|digest)": "([0-9a-f]{64})"\}')
_RUN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SEAL = re.compile(r"[0-9a-f]{64}")
_END_BYTES = 79
"""Of the longer end, `, "digest": "..."}`; the other is three less."""


def seal_of(body: bytes, key: bytes | None) -> str:
    """The seal of a line's bytes: HMAC-SHA256 with a key, SHA-256 without."""
    if key is None:
        return hashlib.sha256(body).hexdigest()
    return hmac.digest(key, body, "sha256").hex()


class Chain:
    """Links lines, one after the other.

    Args:
        run: names this run among all that write to the same log; letters, digits, `.` and `-`.
        key: of the seals. None: plain digests, which whoever may write the file can make as well.
    """

    def __init__(self, run: str, key: bytes | None) -> None:
        self.run = run
        self.seq = 0
        """Of the last line written; 0 before the first."""
        self.seal = FIRST
        """Of the last line written."""
        self._key = key
        self._made = FIRST

    def link(self, entry: Mapping[str, Any], lost: int) -> bytes:
        """The next line, without its end; not part of the chain before `written`.

        Args:
            entry: what it says, `time` first.
            lost: lines that should have stood before it.
        """
        place: dict[str, Any] = {"run": self.run, "seq": self.seq + 1, "prev": self.seal}
        if lost:
            place["lost"] = lost
        body = json.dumps({**entry, **place})[:-1].encode()
        self._made = seal_of(body, self._key)
        name = "digest" if self._key is None else "mac"
        return body + f', "{name}": "{self._made}"}}'.encode()

    def written(self) -> None:
        """The line made last is in the file."""
        self.seq, self.seal = self.seq + 1, self._made


@dataclass(frozen=True, slots=True)
class Link:
    """What a line says of its place."""

    run: str
    seq: int
    prev: str
    seal: str
    lost: int
    is_keyed: bool
    body: bytes
    """What is sealed."""

    def holds(self, key: bytes | None) -> bool:
        """Whether the line is as it was sealed, with this key."""
        if self.is_keyed != (key is not None):
            return False
        return hmac.compare_digest(seal_of(self.body, key), self.seal)


def read(text: bytes) -> Link | None:
    """What a line, without its end, says of its place; None where it is none of the chain."""
    end = _END.search(text, max(0, len(text) - _END_BYTES))
    if end is None or end.end() != len(text):
        return None
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    run, seq, prev, lost = (said.get(name) for name in ("run", "seq", "prev", "lost"))
    lost = 0 if lost is None else lost
    if not (isinstance(run, str) and isinstance(prev, str) and type(seq) is type(lost) is int):
        return None
    if not (_RUN.fullmatch(run) and _SEAL.fullmatch(prev) and 0 < seq < 2**63 > lost >= 0):
        return None
    return Link(
        *(run, seq, prev, end[2].decode(), lost),
        is_keyed=end[1] == b"mac",
        body=text[: end.start()],
    )
