"""How remembered queries lie in Redis: names of keys, widths in bytes, arrays to bytes and back.

The scripts beside this file (`*.lua`) hold the other half; `lookup.lua` describes the layout.
"""

from __future__ import annotations

import math
import urllib.parse
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from proxy.history.link import Script
from proxy.history.store import Keys, Owners, Records

Bytes = npt.NDArray[np.uint8]

TAG = 5
"""Bytes of a key that are kept: with 10^8 entries a chance match of one key is 10^-4 likely."""
HEAD = np.dtype([("time", "<u4"), ("nonce", "<u4")])
"""What precedes a record: seconds since 1970, and what tells it from another in the same place."""
SHARDS = 32
"""Hashes an epoch's index is spread over, a power of two: none of them grows so large that to
free it would hold up the server, and a lookup asks each but once."""
_SLACK_S = 60  # an epoch's keys outlive it so long, to be freed without haste
_EPOCH_TTLS = 4  # an epoch's index only grows: after so many times the age kept a new one begins
_IN_ROW = 256  # records in one hash; they expire together
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses nothing and stirs the top bits


def script(name: str) -> Script:
    """One of the Lua scripts of this package."""
    return Script(Path(__file__).with_name(f"{name}.lua").read_text())


class Keyspace:
    """The part of a server's keys that belongs to one namespace and one type of record.

    Args:
        namespace: any text; replicas share what they remember under the same one.
        record: type of the records. Another type, say of another version, shares nothing but marks.
        ttl_s: seconds a query is remembered.
    """

    def __init__(self, namespace: str, record: np.dtype[np.void], *, ttl_s: int) -> None:
        self.record = record
        self.ttl_s = ttl_s
        self.slot = HEAD.itemsize + record.itemsize
        # In braces, so that a cluster keeps all of it in one place, where scripts can work on it.
        self.prefix = f"bw:{{{urllib.parse.quote(namespace, safe='')}}}:"
        self.marks = f"{self.prefix}m:"
        self._kind = f"{zlib.crc32(repr(record.descr).encode()) & 0xFFFF:04x}"
        self._match = np.dtype([("row", "<u2"), ("shared", "<u8"), ("record", record)])

    def epoch(self, now: float) -> int:
        """Which epoch a query asked now belongs to."""
        return int(now // (_EPOCH_TTLS * self.ttl_s))

    def epoch_key(self, epoch: int) -> str:
        """The key of an epoch."""
        return f"{self.prefix}{self._kind}:{epoch}"

    def living(self, now: float) -> list[str]:
        """Keys of the epochs that may hold queries young enough, the older first."""
        first = self.epoch(now - self.ttl_s)
        return [self.epoch_key(epoch) for epoch in range(first, self.epoch(now) + 1)]

    def over_key(self, now: float) -> str:
        """Key of an epoch that cannot hold queries young enough any more."""
        return self.epoch_key(self.epoch(now - self.ttl_s) - 1)

    def epoch_left_s(self, now: float) -> int:
        """For how long keys of the epoch that is now are kept."""
        ends = (self.epoch(now) + 1) * _EPOCH_TTLS * self.ttl_s
        return math.ceil(ends + self.ttl_s + _SLACK_S - now)

    def counts_key(self, now: float) -> str:
        """The key that counts how much each owner has asked to remember this minute."""
        return f"{self.prefix}o:{int(now // 60)}"

    @staticmethod
    def rows_for(queries: int) -> int:
        """Rows of records that hold so many queries at least."""
        return math.ceil(queries / _IN_ROW) + 1

    def tags(self, keys: Keys) -> Bytes:
        """What is kept of keys: (B, K) to (B, K * TAG)."""
        mixed = (np.ascontiguousarray(keys, dtype="<u8") * _MIX).view(np.uint8)
        # The highest byte first: it depends on every bit of the key, and says which bucket it is.
        parts = mixed.reshape(*keys.shape, 8)[:, :, : 7 - TAG : -1]
        return np.ascontiguousarray(parts).reshape(len(keys), keys.shape[1] * TAG)

    def sharded(self, tags: Bytes) -> tuple[bytes, bytes, bytes]:
        """Tags as a lookup is told them: by shard, how many are in each, and which each was."""
        flat = tags.reshape(-1, TAG)
        shards = flat[:, 0] % SHARDS
        order = np.argsort(shards, kind="stable")
        sizes = np.bincount(shards, minlength=SHARDS)
        return flat[order].tobytes(), sizes.astype("<u2").tobytes(), order.astype("<u2").tobytes()

    def slots(self, heads: npt.NDArray[np.void], records: Records) -> Bytes:
        """What a row of records holds: (B, slot)."""
        return np.concatenate([_bytes(heads), _bytes(records.astype(self.record))], axis=1)

    def queries(self, keys: Keys, owners: Owners, slots: Bytes) -> Bytes:
        """What the server is told to remember: (B, 8 + K * TAG + slot)."""
        return np.concatenate([_bytes(owners.astype("<u8")), self.tags(keys), slots], axis=1)

    def matches(self, data: bytes) -> npt.NDArray[np.void]:
        """What a lookup found: fields row, shared and record.

        Raises:
            ValueError: these are not whole matches.
        """
        return np.frombuffer(data, dtype=self._match)


def _bytes(array: npt.NDArray[np.generic]) -> Bytes:
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), array.itemsize)
