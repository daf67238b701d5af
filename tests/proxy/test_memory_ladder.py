"""Batches that do not fit into memory: halved, sent to the CPU, and tried whole again later."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch

from proxy.memory_ladder import MemoryLadder, Pass, is_out_of_memory


class Small:
    """A device that holds so many samples at a time, and the CPU beside it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[list[int]] = []
        self.on_cpu: list[list[int]] = []
        self.fallbacks: list[str] = []
        self.now_s = 0.0
        self.ladder = MemoryLadder(self.fallbacks.append, cool_down_s=30.0, now=lambda: self.now_s)

    def device(self, items: Sequence[int]) -> list[str]:
        self.tried.append(list(items))
        if sum(items) > self.room:
            raise torch.OutOfMemoryError(f"tried to allocate {sum(items)} of {self.room}")
        return [f"<{item}>" for item in items]

    def cpu(self, items: Sequence[int]) -> list[str]:
        self.on_cpu.append(list(items))
        return [f"({item})" for item in items]

    def run(self, *items: int, key: str = "look") -> list[str]:
        self.tried.clear()
        work: Pass[int, str] = Pass(key, lambda item: item, self.device, self.cpu)
        return self.ladder.run(work, items)


def test_what_fits_is_run_as_it_is() -> None:
    subject = Small(8)
    assert subject.run(1, 2, 3) == ["<1>", "<2>", "<3>"]
    assert subject.tried == [[1, 2, 3]]
    assert subject.fallbacks == []


def test_a_batch_is_halved_until_it_fits() -> None:
    subject = Small(2)
    assert subject.run(1, 1, 1, 1, 1, 1, 1, 1) == ["<1>"] * 8
    assert [len(part) for part in subject.tried] == [8, 4, 2, 2, 4, 2, 2]
    assert set(subject.fallbacks) == {"smaller_batch"}


def test_later_batches_are_small_from_the_start() -> None:
    subject = Small(2)
    subject.run(1, 1, 1, 1)
    assert subject.run(1, 1, 1, 1, 1) == ["<1>"] * 5
    assert subject.tried == [[1, 1], [1, 1], [1]]


def test_one_that_does_not_fit_alone_goes_to_the_cpu() -> None:
    subject = Small(4)
    assert subject.run(1, 9, 2) == ["<1>", "(9)", "<2>"]
    assert subject.on_cpu == [[9]]
    assert subject.fallbacks.count("cpu") == 1
    # The next one as large is not tried in vain; one that fits is run where it was.
    assert subject.run(9) == ["(9)"]
    assert subject.tried == []
    assert subject.run(4) == ["<4>"]


def test_the_whole_batch_is_tried_again_after_the_cool_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    subject = Small(2)
    subject.run(1, 1, 1, 1)
    subject.run(9)
    subject.now_s = 29.9
    subject.room = 100
    subject.run(1, 1, 1, 1)
    assert subject.tried == [[1, 1], [1, 1]]
    subject.now_s = 30.0
    assert subject.run(1, 1, 9) == ["<1>", "<1>", "<9>"]
    assert subject.tried == [[1, 1, 9]]
    texts = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in texts] == [
        *("out of memory on the device", "the device has memory again")
    ]


def test_an_episode_that_goes_on_is_not_told_again(caplog: pytest.LogCaptureFixture) -> None:
    subject = Small(1)
    subject.run(1, 1)
    subject.now_s = 31.0
    subject.run(1, 1)
    assert len(caplog.records) == 1


def test_passes_fall_one_by_one() -> None:
    subject = Small(2)
    subject.run(1, 1, 1, 1)
    subject.room = 100
    subject.run(1, 1, 1, 1, key="purify")
    assert subject.tried == [[1, 1, 1, 1]]


def test_other_errors_are_raised_at_once() -> None:
    subject = Small(8)

    def broken(items: Sequence[int]) -> list[str]:
        raise RuntimeError("shape '[2]' is invalid")

    with pytest.raises(RuntimeError, match="is invalid"):
        subject.ladder.run(Pass("look", int, broken, subject.cpu), [1, 2])
    assert subject.on_cpu == []


def test_without_a_cpu_beside_it_there_is_no_more_to_do() -> None:
    subject = Small(1)
    with pytest.raises(MemoryError, match="5 samples do not fit"):
        subject.ladder.run(Pass("look", int, subject.device, None), [5])


def test_without_a_cpu_beside_it_what_failed_is_tried_again_at_once() -> None:
    """There is nothing else to do meanwhile; a moment without memory is not half a minute."""
    subject = Small(1)
    work: Pass[int, str] = Pass("look", int, subject.device, None)
    with pytest.raises(MemoryError):
        subject.ladder.run(work, [5])
    subject.room = 5
    assert subject.ladder.run(work, [5]) == ["<5>"]


def test_what_failed_is_let_go_before_the_next_try() -> None:
    """The traceback of the first pass would hold its tensors while the halves need the room."""
    alive: list[int] = []

    class Block:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    seen: list[int] = []

    def device(items: Sequence[int]) -> list[int]:
        seen.append(len(alive))
        block = Block()
        if len(items) > 1:
            raise torch.OutOfMemoryError(f"no room for {block}")
        return list(items)

    ladder = MemoryLadder(lambda kind: None)
    assert ladder.run(Pass("look", lambda item: 1, device, None), [1, 2]) == [1, 2]
    assert seen == [0, 0, 0]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory
