"""The secrets of the history: what fingerprints are salted with, and for how long."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable

from proxy.config import History
from proxy.keyfile import read_key

_OWNER = b"owner"
_STEADY = b"steady"


class Salts:
    """Keys derived from one secret: by model and epoch, equal on all replicas that share it.

    An attacker who knew the salt could make queries that share no key with each other. It changes
    with every epoch; for as long as queries are remembered, those of the last one count as well.

    Args:
        cfg: key file, epoch and age.
        now: seconds since some fixed time, equal on all replicas.
        secret: where there is no key file. Default: random.

    Raises:
        ConfigError: the key file cannot be used.
    """

    def __init__(
        self,
        cfg: History,
        now: Callable[[], float] = time.time,
        *,
        secret: bytes | None = None,
    ) -> None:
        self._secret = secret or os.urandom(32)
        if cfg.key_file is not None:
            self._secret = read_key("history", cfg.key_file)
        self._epoch_s = cfg.rotate_hours * 3600
        self._overlap_s = cfg.ttl_minutes * 60
        self._now = now

    @property
    def name(self) -> str:
        """A name for the secret that tells nothing about it: replicas with equal ones agree."""
        return self._derived(b"name").hex()[:16]

    def of(self, model: str) -> tuple[bytes, ...]:
        """The salts in force for a model's fingerprints: this epoch's, and the last one's."""
        now = self._now()
        epoch = int(now // self._epoch_s)
        fresh = now - epoch * self._epoch_s < self._overlap_s
        epochs = (epoch, epoch - 1) if fresh else (epoch,)
        return tuple(self._derived(b"epoch", str(each).encode(), model.encode()) for each in epochs)

    def steady(self, model: str) -> bytes:
        """The key of a model's sketches, which must stay comparable from one epoch to the next."""
        return self._derived(_STEADY, model.encode())

    def owner(self, model: str, principal: str) -> int:
        """The name a principal is remembered under, 64 bits, the same for one model only."""
        digest = self._derived(_OWNER, model.encode(), principal.encode())
        return int.from_bytes(digest[:8], "little")

    def _derived(self, *parts: bytes) -> bytes:
        # Lengths first: ("ab", "c") and ("a", "bc") must not meet.
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.new(self._secret, message, hashlib.sha256).digest()
