"""Ordinary clients: they send at a steady mean rate and check every answer against its request."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence

import grpc
import numpy as np

from loadtests.soak.subjects import Digest, Subject
from loadtests.soak.tally import MISSING, OTHER_VERDICT, RIGHT, WRONG, Tally
from proxy import rpc, wire
from proxy.status import BUSY

PURIFYING, REFUSING = "image_purified", "image_refused"
"""The same model twice, with another action each."""
HEADER = "x-principal"
PRINCIPALS = 50
CONNECTIONS = 4
LONGEST_S = 10.0
"""A request without an answer by then is missing."""
MOST_OUTSTANDING = 800


class Traffic:
    """Clients of one sidecar.

    Args:
        address: where it listens.
        pool: images sent in turn.
    """

    def __init__(self, address: str, pool: Sequence[Subject], tally: Tally) -> None:
        self.tally = tally
        self.pool = pool
        self.expected: dict[tuple[str, Digest], str] = {}
        """The first answer to each image, "served", "purified" or "refused": what later ones
        are to be."""
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        self._channels = [
            grpc.aio.insecure_channel(address, options=options) for _ in range(CONNECTIONS)
        ]
        self._calls = [channel.unary_unary(rpc.INFER.path) for channel in self._channels]
        self._numbers = itertools.count()
        self._outstanding = 0

    async def run(self, rate_per_s: float, until_s: float) -> None:
        """Send until then; returns when all are answered."""
        rng = random.Random(5)
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while due < until_s:
                await asyncio.sleep(max(due - time.monotonic(), 0.0))
                if self._outstanding < MOST_OUTSTANDING:
                    group.create_task(self._one())
                else:
                    self.tally.unsent += 1
                due += rng.expovariate(rate_per_s)

    async def learn(self) -> None:
        """Ask about every image once, of both models, and remember what became of it.

        Raises:
            RuntimeError: an answer is not the image's, or the defence does nothing.
        """
        for model in (PURIFYING, REFUSING):
            for subject in self.pool:
                got = await self.ask(model, subject)
                if got not in ("served", "purified", "refused"):
                    raise RuntimeError(f"before any fault, {model} answered: {got}")
                self.expected[model, subject.digest] = got
        tampered = [s for s in self.pool if s.is_tampered]
        acted = sum(self.expected[PURIFYING, s.digest] == "purified" for s in tampered)
        if acted < 0.9 * len(tampered):
            raise RuntimeError(f"only {acted} of {len(tampered)} tampered images were purified")

    async def ask(
        self, model: str, subject: Subject, *, timeout_s: float = LONGEST_S, cancel_s: float = 0
    ) -> str:
        """What became of one request: served, purified, refused, missing, wrong or a status."""
        number = next(self._numbers)
        request_id = f"{model}-{number}"
        call = self._calls[number % CONNECTIONS](
            subject.message(model, request_id),
            timeout=timeout_s,
            metadata=((HEADER, f"client-{number % PRINCIPALS}"),),
        )
        if cancel_s:
            asyncio.get_running_loop().call_later(cancel_s, call.cancel)
        try:
            data = await call
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            return "CANCELLED"
        except grpc.aio.AioRpcError as error:
            if error.details() == BUSY:
                return "refused"
            return str(error.code().name)
        return _read(data, request_id, subject)

    async def raw(self, message: bytes) -> str:
        """The status that bytes are answered with."""
        call = self._calls[0](message, timeout=LONGEST_S)
        return str((await call.code()).name)

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()

    async def _one(self) -> None:
        number = self.tally.sent
        self.tally.sent += 1
        model = REFUSING if number % 4 == 3 else PURIFYING
        subject = self.pool[(number // 4 if model == REFUSING else number) % len(self.pool)]
        self._outstanding += 1
        sent_s = time.monotonic()
        try:
            got = await self.ask(model, subject)
        finally:
            self._outstanding -= 1
        done_s = time.monotonic()
        outcome = self._judged(model, subject, got)
        excused = self.tally.note(outcome, sent_s, done_s, f"{model}, {got}")
        if subject.is_tampered and excused:
            self.tally.untouched_inside += got == "served"
        elif subject.is_tampered and got in ("served", "purified", "refused"):
            self.tally.tampered += 1
            self.tally.untouched += got == "served"

    def _judged(self, model: str, subject: Subject, got: str) -> str:
        if got == self.expected[model, subject.digest]:
            return RIGHT
        if got in ("served", "purified") or (got == "refused" and model == REFUSING):
            return OTHER_VERDICT
        return MISSING if got == "DEADLINE_EXCEEDED" else got


def _read(data: bytes, request_id: str, subject: Subject) -> str:
    """Whose answer it is."""
    answer = wire.InferResponse.parse(data)
    digest = answer.tensor("digest")
    if answer.head.id != request_id or digest is None:
        return WRONG
    crc, adler = np.frombuffer(digest.payload(), np.uint32)
    given = (int(crc), int(adler))
    if given == subject.digest:
        return "served"
    return "purified" if given == subject.purified else WRONG
