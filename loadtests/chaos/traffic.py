"""Clients that send inputs nobody sent before, and know by the answer which one it was for."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

import grpc
import numpy as np
import torch
from numpy.typing import NDArray

import purifiers
from loadtests.chaos.ledger import (
    LATE,
    LOST,
    PURIFIED,
    REFUSED,
    SERVED,
    SWAPPED,
    UNREADABLE,
    Ledger,
    Outcome,
)
from loadtests.soak.subjects import OUTPUTS, PARAMS, PURIFIER, SIDE, digest_of, subjects
from loadtests.soak.traffic import HEADER, PURIFYING, REFUSING
from proxy import rpc, wire
from proxy.errors import ProxyError
from proxy.status import BUSY

DEADLINE_S = 4.0
GRACE_S = 3.0
"""An answer this much after its deadline, or none by then, is a hang."""
PAUSE_S = 0.02
"""Between the answer to a client and its next question."""
CLIENTS = 8
PRINCIPALS = 40
STEPS = 2000
"""In brightness, which make images of one base different."""

_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
)


class Images:
    """Inputs that are all different: a base image with a number written into its lowest bits."""

    def __init__(self) -> None:
        self._purifier = purifiers.build(PURIFIER, PARAMS)
        every = subjects()
        self.clean = [each.pixels for each in every if not each.is_tampered]
        self.tampered = [each.pixels for each in every if each.is_tampered]
        self._numbers = itertools.count(1)

    def make(self, *, tampered: bool) -> NDArray[np.float32]:
        """An image (3, side, side), hardly different from its base."""
        number = next(self._numbers)
        base = self.tampered if tampered else self.clean
        x = brightened(base[number % len(base)], number % STEPS)  # purifiers keep the mean
        places = x.reshape(-1)[:20]
        bits = (number >> np.arange(20)) & 1
        places[:] = np.clip(places, 0.01, 0.99) + bits.astype(np.float32) * np.float32(1e-4)
        return x

    def purified(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """As the model sees it after the purifier."""
        with torch.inference_mode():
            cleaned = self._purifier.purify(torch.from_numpy(x[None]))[0].numpy()
        made: NDArray[np.float32] = cleaned
        return made


def brightened(pixels: bytes, steps: int) -> NDArray[np.float32]:
    """An image, brighter by so many millionths."""
    x = np.frombuffer(pixels, np.float32).reshape(3, SIDE, SIDE)
    made: NDArray[np.float32] = np.clip(x + np.float32(steps * 1e-6), 0, 1)
    return made


class Traffic:
    """A bounded number of clients, each asking as soon as it has been answered.

    Args:
        address: of the sidecar.
    """

    def __init__(self, address: str) -> None:
        self._images = Images()
        self._numbers = itertools.count()
        self._turn = -1
        # A connection each: with workers that share a port, connections decide who serves.
        self._channels = [
            grpc.aio.insecure_channel(address, options=_CHANNEL) for _ in range(CLIENTS)
        ]
        self._calls = [each.unary_unary(rpc.INFER.path) for each in self._channels]

    async def run(self, ledger: Ledger, stop: asyncio.Event) -> None:
        """Send until told to stop; returns when everything has ended."""
        async with asyncio.TaskGroup() as group:
            for client in range(CLIENTS):
                group.create_task(self._client(client, ledger, stop))

    async def leave_out_what_is_misjudged(self) -> tuple[int, int]:
        """From now on, send only images that are judged as they are meant to be.

        Detectors have false positives, and miss some of what is tampered. Without such images
        every other answer than the right one is the proxy's fault.

        Returns:
            How many clean and tampered images are left.
        """
        images = self._images
        images.clean = [x for x in images.clean if await self._is_right(x, tampered=False)]
        images.tampered = [x for x in images.tampered if await self._is_right(x, tampered=True)]
        return len(images.clean), len(images.tampered)

    async def _is_right(self, pixels: bytes, *, tampered: bool) -> bool:
        for model, closed in ((PURIFYING, False), (REFUSING, True)):
            for steps in (0, STEPS // 2, STEPS):
                x = brightened(pixels, steps)
                if not (await self._send(0, model, x, tampered, closed)).is_right:
                    return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()

    async def ask(self, client: int = 0) -> Outcome:
        """Send one request and say what came of it."""
        self._turn += 1
        tampered, closed = self._turn % 4 == 3, self._turn % 8 > 3
        x = self._images.make(tampered=tampered)
        return await self._send(client, REFUSING if closed else PURIFYING, x, tampered, closed)

    async def _send(
        self, client: int, model: str, x: NDArray[np.float32], tampered: bool, closed: bool
    ) -> Outcome:
        number = next(self._numbers)
        request_id = f"chaos-{number}"
        tensor = ("image", "FP32", (1, 3, SIDE, SIDE), x.tobytes())
        message = wire.build_infer_request(model, "", [tensor], OUTPUTS, request_id=request_id)
        sent_s = time.monotonic()
        told = await self._told(client, number, message, request_id, x)
        return Outcome(told, sent_s, time.monotonic(), tampered, closed)

    async def _told(
        self, client: int, number: int, message: bytes, request_id: str, x: NDArray[np.float32]
    ) -> str:
        metadata = ((HEADER, f"client-{number % PRINCIPALS}"),)
        call = self._calls[client](message, timeout=DEADLINE_S, metadata=metadata)
        try:
            async with asyncio.timeout(DEADLINE_S + GRACE_S):
                data = await call
        except TimeoutError:
            return LATE
        except grpc.aio.AioRpcError as error:
            return REFUSED if error.details() == BUSY else str(error.code().name)
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            return LOST
        return whose(data, request_id, digest_of(x), digest_of(self._images.purified(x)))

    async def _client(self, client: int, ledger: Ledger, stop: asyncio.Event) -> None:
        while not stop.is_set():
            ledger.asked += 1
            ledger.note(await self.ask(client))
            await asyncio.sleep(PAUSE_S)


def whose(data: bytes, request_id: str, sent: Sequence[int], purified: Sequence[int]) -> str:
    """Whether an answer is that of the request: served, purified, swapped or unreadable.

    Args:
        data: the message that came.
        request_id: what its id must be.
        sent: digest of the input as it was sent.
        purified: and as the purifier leaves it.
    """
    try:
        answer = wire.InferResponse.parse(data)
        digest = answer.tensor("digest")
        given = None if digest is None else np.frombuffer(digest.payload(), np.uint32).tolist()
    except (ProxyError, ValueError):
        return UNREADABLE
    if answer.head.id and answer.head.id != request_id:
        return SWAPPED
    if given is None or len(given) != 2 or not answer.head.id:
        return UNREADABLE
    if given == list(sent):
        return SERVED
    return PURIFIED if given == list(purified) else SWAPPED
