"""Shared memory as it is read: the right bytes of the right object, or a refusal."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import Callable

from loadtests.fuzz.reading import Difference, same
from proxy.pb import open_inference_pb2 as pb
from proxy.shared_memory import SharedMemoryReader
from proxy.upstream import Answer, Upstream

_LIMIT = 1 << 12


class Registry(Upstream):
    """A Triton that knows one region, whatever it is asked."""

    def __init__(self) -> None:
        self.answer = b""

    async def call(self, *_: object, **__: object) -> Answer:
        """Its answer to SystemSharedMemoryStatus."""
        return Answer(self.answer, (), ())


class Memory:
    """An object in shared memory with known content."""

    def __init__(self) -> None:
        self.content = random.Random(0).randbytes(_LIMIT * 2)
        self.key = f"breakwater_fuzz_{os.getpid()}_{secrets.token_hex(4)}"
        self._path = f"/dev/shm/{self.key}"
        with open(self._path, "xb") as file:
            file.write(self.content)
        self._registry = Registry()
        self._reader = SharedMemoryReader(self._registry, max_bytes=_LIMIT)
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        """Remove it."""
        self._loop.close()
        os.unlink(self._path)

    def case(self, rng: random.Random) -> tuple[bytes, Callable[[], None]]:
        """One reference and what Triton says of its region, and the check."""
        odd = rng.random() < 0.4
        wrong = (
            f"../shm/{self.key}",
            "..",
            ".",
            "",
            "a/b",
            "x" * 300,
            "a\0b",
            "no_such",
            f"//{self.key}",
        )
        key = rng.choice(wrong) if odd and rng.random() < 0.3 else f"/{self.key}"
        huge = (2**31, 2**62, 2**63 - 1, 2**64 - 1)
        start = rng.choice(huge) if odd and rng.random() < 0.3 else rng.randrange(_LIMIT)
        size = rng.choice(huge) if odd and rng.random() < 0.3 else rng.randrange(_LIMIT * 2)
        offset = rng.choice(huge[:3]) if odd and rng.random() < 0.3 else rng.randrange(_LIMIT)
        wanted = rng.choice(huge[:3]) if odd and rng.random() < 0.2 else rng.randrange(_LIMIT)
        status = pb.SystemSharedMemoryStatusResponse()
        name = "r" if rng.random() < 0.95 else "other"
        region = status.regions[name]
        region.name, region.key, region.offset, region.byte_size = name, key, start, size
        self._registry.answer = status.SerializeToString()

        def check() -> None:
            read = self._reader.read(
                "r", offset=offset, byte_size=wanted, timeout_s=1.0, metadata=None
            )
            got = self._loop.run_until_complete(read)
            if offset + wanted > size or key.removeprefix("/") != self.key or name != "r":
                raise Difference("read outside the region, or another one")
            same("content", got, self.content[start + offset : start + offset + wanted])
            same("length", len(got), wanted)

        return self._registry.answer + b"%d %d" % (offset, wanted), check
