"""The memory of queries: looked up here first, in the shared store second, never waited for long.

One object for the process; everything on the event loop. All workers of one supervisor have one
memory, in which they take turns. Nothing here raises for a shared store that is away: what this
machine remembers then has to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors import chains
from detectors.sketch import SIZE
from detectors.steps import TRAIL
from proxy import __version__, config
from proxy.history.access import Access
from proxy.history.fingerprints import KEYS, Prints
from proxy.history.linking import Linked, link
from proxy.history.local import LocalStore
from proxy.history.memory import ForeignLayoutError, Memory, WorkerMemory
from proxy.history.pardons import Pardons
from proxy.history.quarantine import LONGEST, Quarantine
from proxy.history.salts import Salts
from proxy.history.shared import SharedStore
from proxy.history.store import FingerprintStore, Found, Handles
from proxy.history.trails import Trails
from proxy.metrics import Metrics

log = logging.getLogger(__name__)

_LATER_S = 0.001
_MOST_LATER = 4_096
_CLEAR_S = 1.0
"""What an operator waits for a turn."""

Rows = npt.NDArray[np.intp]
Amend = Callable[[Handles, npt.NDArray[np.void]], None]


class Trace:
    """What the history knows of one request's samples; lets it learn what came of them."""

    def __init__(self, linked: Linked) -> None:
        self._linked = linked
        self.origins = _origins(linked)
        """The model's class for the first query of each sample's chain, as far as it was the same
        principal's and answered before this request; -1: unknown."""
        self.is_answered = False
        """Whether the model's answer is known."""
        self._remembered: list[tuple[Amend, Rows, Handles]] = []

    def remember(
        self, store: FingerprintStore, prints: Prints, owner: int, *, amend: Amend | None = None
    ) -> None:
        """Have a store remember what it does not know; what comes of it is told it as well.

        Args:
            store: which.
            prints: of the samples.
            owner: who asks.
            amend: what to call instead of the store's own.
        """
        rows = np.flatnonzero(~self._linked.repeats)
        owners = np.full(len(rows), owner, np.uint64)
        handles = store.remember(prints.keys[0][rows], owners, self._linked.records[rows])
        self._remembered.append((amend or store.amend, rows, handles))

    def relink(self, linked: Linked) -> None:
        """Go on with better links than those remembered so far."""
        self._linked = linked
        self.origins = _origins(linked)
        self._amend()

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """The evidence, (B, F) as `Evidence.chain`."""
        return chains.features(self._linked.records)

    @property
    def is_chained(self) -> bool:
        """Whether some sample follows on an earlier query."""
        return bool((self._linked.records["length"] > 1).any())

    def is_own(self, row: int) -> bool:
        """Whether a sample's chain is its principal's own doing."""
        return bool(self._linked.records["blame"][row] == chains.OWN)

    @property
    def longest(self) -> int:
        """Queries in the longest chain that a sample continues."""
        return int(self._linked.records["length"].max(initial=0))

    def answered(self, output: npt.NDArray[np.float32]) -> None:
        """Note the model's answer, (B, K): whether its class changes along a chain is evidence."""
        self.is_answered = True
        records, repeats = self._linked.records, self._linked.repeats
        for row, label in enumerate(output.argmax(axis=1).tolist()):
            if not repeats[row]:
                chains.answered(records[row : row + 1], label)
        self._amend()

    def _amend(self) -> None:
        for amend, rows, handles in self._remembered:
            amend(handles, self._linked.records[rows])


def _origins(linked: Linked) -> list[int]:
    origins: list[int] = linked.records["origin"].tolist()
    return origins


class History:
    """Remembers the queries of all models that want it.

    Args:
        cfg: size, age, secret and shared store.
        metrics: told of what the shared store could not do.
        file: descriptor of the workers' common file (`memory_file`); closed here.
        now: seconds since 1970.
        clock: seconds; never runs backwards.

    Raises:
        ConfigError: the key file or the shared store's settings cannot be used.
    """

    def __init__(
        self,
        cfg: config.History,
        metrics: Metrics,
        *,
        file: int | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = _memory(file, cfg.capacity)
        self.salts = Salts(cfg, now, secret=self._memory.secret)
        self._now, self._clock = now, clock
        self._ttl_s = cfg.ttl_minutes * 60
        self._metrics = metrics
        self._later: deque[Callable[[], None]] = deque()
        self._catching_up: asyncio.TimerHandle | None = None
        with self._memory.at_once(limit_s=_CLEAR_S):
            self._local = LocalStore(
                self._memory.capacity,
                chains.RECORD,
                KEYS,
                ttl_s=self._ttl_s,
                clock=clock,
                memory=self._memory,
            )
            self._quarantine = Quarantine(clock, wall=now, memory=self._memory)
            self._trails = Trails(memory=self._memory)
            self._pardons = Pardons(self._memory)
            self._memory.repair = self._local.repair
        self._shared = None
        if cfg.shared is not None:
            self._shared = _shared(cfg.shared, self.salts.name, self._ttl_s, metrics)

    async def start(self) -> None:
        """Connect to the shared store, if there is one; does not wait until it answers."""
        if self._shared is not None:
            await self._shared.start()

    async def close(self) -> None:
        """Tell the shared store what it has not been told yet, if that is quick, and let it go."""
        self._catch_up()
        if self._catching_up is not None:
            self._catching_up.cancel()
        if self._shared is not None:
            await self._shared.close()

    async def observe(
        self, model: str, principal: str, prints: Prints, policy: config.QueryAttacks
    ) -> Trace:
        """Link the samples of a request to earlier queries, and remember them.

        What this process knows is looked up and remembered in one step, so that queries sent all
        at once find each other. At two workers they may miss each other, but not what was there
        before, nor what comes after.
        """
        started = time.perf_counter()
        owner = self.salts.owner(model, principal)
        prints = prints.of(owner)
        owners = np.full(len(prints.digest), owner, np.uint64)
        found: list[Found] = []
        trail: npt.NDArray[np.int16] | None = prints.sketch[:0]
        pardoned = 0.0
        async with self._memory.turn(shared=True) as mine:
            if mine:
                found = [await self._local.lookup(keys, owners) for keys in prints.keys]
                trail, pardoned = self._trails.of(owner), self._pardons.of(owner)
        follow = partial(link, prints, owner=owner, now=self._now(), trail=trail, pardoned=pardoned)
        trace = Trace(linked := follow(found=found))
        async with self._memory.turn() as mine_too:
            if mine_too:
                self._trails.add(owner, prints.sketch[~linked.repeats])
                trace.remember(self._local, prints, owner, amend=self._amend)
        if not (mine and mine_too):
            self._metrics.history_degraded("busy")
        self._metrics.history_lookup(time.perf_counter() - started)
        if self._shared is not None:
            lookups = (self._shared.lookup(keys, owners) for keys in prints.keys)
            elsewhere = list(await asyncio.gather(*lookups))
            self._impose(model, principal, elsewhere, policy)
            if any(len(each.rows) for each in elsewhere):
                trace.relink(follow(found=[*found, *elsewhere]))
            trace.remember(self._shared, prints, owner)
        return trace

    def _amend(self, handles: Handles, records: npt.NDArray[np.void]) -> None:
        self._soon(partial(self._local.amend, handles, records))

    def _soon(self, change: Callable[[], None]) -> None:
        """Change the memory in its turn: now if that is possible without waiting."""
        self._later.append(change)
        if len(self._later) > _MOST_LATER:
            self._later.popleft()
            self._metrics.history_degraded("busy")
        if self._catching_up is None:
            self._catch_up()

    def _catch_up(self) -> None:
        self._catching_up = None
        with self._memory.at_once() as mine:
            while mine and self._later:
                self._later.popleft()()
        if self._later:
            loop = asyncio.get_running_loop()
            self._catching_up = loop.call_later(_LATER_S, self._catch_up)

    def _impose(
        self, model: str, principal: str, found: Sequence[Found], policy: config.QueryAttacks
    ) -> None:
        """Quarantine whom another replica has put there, for no longer than would be done here."""
        half_life_s = policy.quarantine_minutes * 60
        until = max(float(each.marks.max(initial=0)) for each in found)
        if until and half_life_s:
            left_s = min(until - self._now(), LONGEST * half_life_s)
            impose = partial(self._quarantine.impose, model, principal)
            self._soon(partial(impose, until=self._clock() + left_s))

    def alarm(self, model: str, principal: str, cfg: config.QueryAttacks, trace: Trace) -> None:
        """A request is part of a series that looks like an attack."""
        self._soon(partial(self._alarm, model, principal, cfg, trace.longest))

    def _alarm(self, model: str, principal: str, cfg: config.QueryAttacks, chain: int) -> None:
        half_life_s = cfg.quarantine_minutes * 60
        standing = self._quarantine.alarm(model, principal, half_life_s=half_life_s, chain=chain)
        if self._shared is not None and half_life_s:
            owner = self.salts.owner(model, principal)
            until = self._now() + standing.quarantined_for_s
            self._shared.mark(owner, until, standing.quarantined_for_s)

    def is_quarantined(self, model: str, principal: str) -> bool:
        """Whether a principal's earlier queries to a model raised alarms that still count."""
        return self._quarantine.is_quarantined(model, principal)

    def standings(self) -> Mapping[str, Any]:
        """What an operator wants to see, ready for JSON."""
        shared = None
        if self._shared is not None:
            down = self._shared.down
            shared = {
                "state": "up" if down is None else f"down: {down}",
                "queued": self._shared.queued,
            }
        return {
            "remembered": len(self._local),
            "shared": shared,
            "principals": [asdict(each) for each in self._quarantine.standings()],
        }

    def count(self) -> None:
        """Publish how much there is."""
        self._metrics.history_size(
            queries=len(self._local), quarantined=self._quarantine.quarantined
        )
        if self._shared is not None:
            self._metrics.history_store(self._shared.down is None)

    async def forget(self, principal: str | None, model: str | None) -> int:
        """Lift the quarantine of a principal, or of all; the number of those concerned.

        Raises:
            TimeoutError: another worker keeps the memory for itself.
        """
        async with self._memory.turn(limit_s=_CLEAR_S) as mine:
            if not mine:
                raise TimeoutError
            lifted = {
                (each.model, each.principal)
                for each in self._quarantine.standings()
                if principal in (None, each.principal) and model in (None, each.model)
            }
            if principal is not None and model is not None:
                lifted.add((model, principal))  # only another replica may know of it
            for each in lifted:
                self._pardon(self.salts.owner(*each))
            return self._quarantine.clear(principal, model)

    def _pardon(self, owner: int) -> None:
        """What an owner has asked until now is not held against it any more."""
        self._pardons.give(owner, self._now())
        self._trails.forget(owner)
        if self._shared is not None:
            self._shared.mark(owner, 0.0, 0.0)


def _memory(file: int | None, capacity: int) -> Memory:
    """The workers' common memory, or one of this process where there is none to be had."""
    if file is None:
        return Memory(capacity)
    layout = f"{__version__} {KEYS} {SIZE} {TRAIL} {chains.RECORD.descr}"
    try:
        memory = WorkerMemory(file, layout, capacity)
    except ForeignLayoutError:
        log.error("the other workers' history is of another version: this one keeps its own")
        return Memory(capacity)
    if memory.capacity != capacity:
        log.warning("history.capacity stays %d until all is restarted", memory.capacity)
    return memory


def _shared(
    cfg: config.SharedHistory, namespace: str, ttl_s: float, metrics: Metrics
) -> SharedStore:
    return SharedStore(
        Access(
            cfg.url,
            username=cfg.username,
            password_file=cfg.password_file,
            ca_file=cfg.ca_file,
            cert_file=cfg.cert_file,
            key_file=cfg.cert_key_file,
        ),
        namespace,
        chains.RECORD,
        ttl_s=round(ttl_s),
        timeout_s=cfg.timeout_ms / 1000,
        capacity=cfg.capacity,
        per_owner_minute=cfg.per_minute,
        on_degraded=metrics.history_degraded,
    )
