"""Holds each principal to its limits.

A debt is never forgotten to make room: only who owes nothing is. While the table is full of
debtors, those not yet known share one entry, so that a million addresses buy no second burst.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy import rpc
from proxy.errors import Limited, RpcRefused
from proxy.limits.settings import Limit, Limits

CAPACITY = 65_536
"""Principals remembered, besides those named in the configuration."""
_LOOKS = 8
"""Oldest entries looked at for each newcomer."""


@dataclass(slots=True)
class _Account:
    tokens: float
    at_s: float
    in_flight: int = 0


class Limiter:
    """Counts what principals use.

    Args:
        limits: those in force; None: nobody is limited.
        refused: told the reason of each refusal, one of `proxy.metrics.LIMITED`.
        clock: seconds, any origin; one that jumps back grants nothing.
    """

    def __init__(
        self,
        limits: Callable[[], Limits | None],
        refused: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        capacity: int = CAPACITY,
    ) -> None:
        self._limits = limits
        self._refused = refused
        self._clock = clock
        self._capacity = capacity
        self._named: dict[str, _Account] = {}
        self._others: OrderedDict[str, _Account] = OrderedDict()
        self._shared: _Account | None = None

    def enter(self, principal: str) -> Callable[[], None]:
        """Count a call in flight; returns what ends it; raises Limited."""
        limits = self._limits()
        if limits is None:
            return _nothing
        limit = self._limit(limits, principal)
        if limit.max_in_flight is None:
            return _nothing
        account = self._account(limits, limit, principal)
        if account.in_flight >= limit.max_in_flight:
            raise self._limited("in_flight", "too many requests in flight; wait for answers")
        account.in_flight += 1

        def leave() -> None:
            account.in_flight -= 1

        return leave

    def take(self, principal: str, size: int) -> None:
        """Take one request of so many bytes; raises Limited."""
        limits = self._limits()
        if limits is None:
            return
        limit = self._limit(limits, principal)
        if limit.max_message_bytes is not None and size > limit.max_message_bytes:
            most = limit.max_message_bytes
            raise self._limited("message_bytes", f"the request is over {most} bytes; send less")
        if limit.requests_per_second is None:
            return
        account = self._account(limits, limit, principal)
        self._fill(account, limit)
        if account.tokens < 1:
            raise self._limited("rate", "too many requests; slow down and try again later")
        account.tokens -= 1

    def check_model(self, principal: str, model: str) -> None:
        """Raise RpcRefused if this principal may not ask this model, as if it were not there."""
        limits = self._limits()
        if limits is None:
            return
        allowed = self._limit(limits, principal).models
        if allowed is not None and not any(fnmatchcase(model, name) for name in allowed):
            self._refused("model")
            raise RpcRefused(f"model {model!r} is not served here")

    def may_call(self, principal: str, method: rpc.Rpc) -> bool:
        """Whether this principal may use the RPC's group, where everybody else may."""
        limits = self._limits()
        if limits is None or method.group in rpc.ALWAYS_ON:
            return True
        allowed = self._limit(limits, principal).rpc_allow
        if allowed is None or method.group in allowed:
            return True
        self._refused("rpc")
        return False

    def _limit(self, limits: Limits, principal: str) -> Limit:
        return limits.principals.get(principal, limits.default)

    def _limited(self, reason: str, text: str) -> Limited:
        self._refused(reason)
        return Limited(text)

    def _account(self, limits: Limits, limit: Limit, principal: str) -> _Account:
        if principal in limits.principals:
            known = self._named.get(principal)
            if known is None:
                known = self._named[principal] = _Account(limit.burst, self._clock())
            return known
        account = self._others.get(principal)
        if account is not None:
            self._others.move_to_end(principal)
            return account
        self._make_room(limits.default)
        if len(self._others) < self._capacity:
            account = self._others[principal] = _Account(limit.burst, self._clock())
            return account
        if self._shared is None:
            self._shared = _Account(limit.burst, self._clock())
        return self._shared

    def _make_room(self, limit: Limit) -> None:
        for _ in range(_LOOKS if len(self._others) >= self._capacity else 0):
            principal, account = next(iter(self._others.items()))
            self._fill(account, limit)
            if account.in_flight == 0 and account.tokens >= limit.burst:
                del self._others[principal]
                return
            self._others.move_to_end(principal)

    def _fill(self, account: _Account, limit: Limit) -> None:
        now = self._clock()
        rate = limit.requests_per_second
        gained = limit.burst if rate is None else max(0.0, now - account.at_s) * rate
        account.tokens = min(limit.burst, account.tokens + gained)
        account.at_s = now


def _nothing() -> None:
    """What ends a call that nobody counts."""
