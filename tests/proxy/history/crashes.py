"""A program that dies in the middle of its turns, line after line, and looks at what it left.

Run by `test_memory`. Each death is one of a process of its own, by SIGKILL, just before some line
of `proxy.history` inside a turn. Exits with a traceback when a survivor finds anything wrong.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import numpy as np

from proxy.history import memory_file
from proxy.history.local import LocalStore
from proxy.history.memory import WorkerMemory
from proxy.history.store import Found, Handles
from tests.proxy.history.queries import RECORD, Keys, random_keys

CAPACITY, WIDTH = 32, 4
LOOP = asyncio.new_event_loop()
OWNER = np.ones(1, np.uint64)


class Worker:
    """One worker's view of the file."""

    def __init__(self, file: int) -> None:
        self.memory = WorkerMemory(os.dup(file), "test", CAPACITY)
        with self.memory.at_once(limit_s=5) as mine:
            assert mine
            self.store = LocalStore(
                CAPACITY, RECORD, WIDTH, ttl_s=60, clock=lambda: 1.0, memory=self.memory
            )
            self.memory.repair = self.store.repair

    def remember(self, number: int) -> Handles:
        with self.memory.at_once(limit_s=5) as mine:
            assert mine
            return self.store.remember(keys(number), OWNER, records(number, 0))

    def amend(self, handles: Handles, number: int) -> None:
        with self.memory.at_once(limit_s=5) as mine:
            assert mine
            self.store.amend(handles, records(number, 255))

    def look(self, numbers: Sequence[int]) -> Found:
        with self.memory.at_once(shared=True, limit_s=5) as mine:
            assert mine
            asked = np.concatenate([keys(number) for number in numbers])
            return LOOP.run_until_complete(self.store.lookup(asked, OWNER.repeat(len(asked))))


def keys(number: int) -> Keys:
    return random_keys(1, seed=number, width=WIDTH)


def records(number: int, filled: int) -> Any:
    made = np.zeros(1, RECORD)
    made["number"], made["rest"] = number, np.void(bytes([filled]) * 60)
    return made


def die_at(line: int) -> None:
    """Be killed just before the so many-th line of the history that is run from now on."""
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if "proxy/history" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def dies(file: int, line: int, number: int) -> bool:
    """Whether a process that remembers and amends a query was killed at that line of it."""
    child = os.fork()
    if child == 0:
        worker = Worker(file)
        die_at(line)
        worker.amend(worker.remember(number), number)
        sys.settrace(None)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def check(worker: Worker, number: int) -> None:
    """What is found is what was remembered, whole, and there is room for as much as ever."""
    asked = np.arange(max(0, number - 2 * CAPACITY), number + 1)
    found = worker.look(asked.tolist())
    assert (found.records["number"] == asked[found.rows]).all(), (asked[found.rows], found)
    assert all(len(set(bytes(each))) == 1 for each in found.records["rest"]), found


def main() -> int:
    file = memory_file.create()
    worker, number, line = Worker(file), 0, 1
    for _ in range(CAPACITY + 3):  # full, so that each query takes another's place
        number += 1
        worker.remember(number)
    while dies(file, line, number + 1):
        number += 1
        check(worker, number)
        for _ in range(3):
            number += 1
            worker.amend(worker.remember(number), number)
            assert len(worker.look([number]).records) == 1
        check(worker, number)
        line += 1
    for _ in range(CAPACITY):
        number += 1
        worker.remember(number)
    left = worker.look(range(number - CAPACITY + 1, number + 1)).records
    assert len(left) >= CAPACITY - 1, left  # of keys in a full table a few are lost
    assert len(worker.store) == CAPACITY
    print(f"{line - 1} deaths")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
