"""Many requests, one pass: what shares a batch, and what harms nobody in it.

The device thread is held by an entry whose `run` waits for an event, so that every test decides
what is waiting when the next batch is built.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.batcher import Batcher, run_here
from proxy.errors import DetectorFailed, InvalidTensor, Overloaded

LONG_S = 60.0
"""A window nobody would wait out."""


class Device:
    """Records every pass, and holds the thread in a `run` of its own while asked to."""

    def __init__(self) -> None:
        self.passes: list[list[Any]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def run(self, items: Sequence[Any]) -> list[Any]:
        self.passes.append(list(items))
        return [f"<{item}>" for item in items]

    def hold(self, items: Sequence[Any]) -> list[Any]:
        self.entered.set()
        assert self.gate.wait(LONG_S)
        return list(items)


@asynccontextmanager
async def batching(
    *,
    max_batch: int = 100,
    window_s: float = 0.0,
    capacity: int = 100,
    company: Callable[[], int] = lambda: 0,
    on_batch: Callable[[int, int], None] = lambda samples, waiting: None,
) -> AsyncIterator[tuple[Batcher, Device]]:
    device = Device()
    batcher = Batcher(
        max_batch=max_batch,
        window_s=window_s,
        capacity=capacity,
        company=company,
        on_batch=on_batch,
    )
    try:
        yield batcher, device
    finally:
        device.gate.set()
        await batcher.close()


def started(work: Any) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)


async def held(batcher: Batcher, device: Device) -> asyncio.Task[Any]:
    """Fill the device thread with an entry of its own, and wait until it is in."""
    task = started(batcher.submit("hold", "hold", device.hold))
    await asyncio.to_thread(device.entered.wait)
    return task


async def queued(*work: Any) -> list[asyncio.Task[Any]]:
    """Start submits in this order and let each reach the queue."""
    tasks = [started(w) for w in work]
    await asyncio.sleep(0)
    return tasks


async def results(tasks: Sequence[asyncio.Task[Any]]) -> list[Any]:
    return [result for result, _ in await asyncio.gather(*tasks)]


async def test_what_waits_together_runs_together() -> None:
    async with batching() as (batcher, device):
        await held(batcher, device)
        tasks = await queued(*(batcher.submit("k", i, device.run) for i in range(9)))
        device.gate.set()
        assert await results(tasks) == [f"<{i}>" for i in range(9)]
        assert device.passes == [list(range(9))]


async def test_keys_are_kept_apart_and_the_oldest_goes_first() -> None:
    async with batching() as (batcher, device):
        await held(batcher, device)
        tasks = await queued(
            *(batcher.submit(i % 2, i, device.run) for i in range(6)),
            batcher.submit("late", "late", device.run),
        )
        device.gate.set()
        assert await results(tasks) == [*(f"<{i}>" for i in range(6)), "<late>"]
        assert device.passes == [[0, 2, 4], [1, 3, 5], ["late"]]


async def test_a_batch_holds_no_more_samples_than_allowed() -> None:
    told: list[tuple[int, int]] = []
    async with batching(max_batch=4, on_batch=lambda *told_: told.append(told_)) as (
        batcher,
        device,
    ):
        await held(batcher, device)
        tasks = await queued(
            *(batcher.submit("k", i, device.run, size=size) for i, size in enumerate((3, 2, 1, 9)))
        )
        device.gate.set()
        assert await results(tasks) == ["<0>", "<1>", "<2>", "<3>"]
        # The third fits beside the first; what is larger than the bound goes alone.
        assert device.passes == [[0, 2], [1], [3]]
        assert told == [(1, 0), (4, 2), (2, 1), (9, 0)]


@given(
    entries=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=12),
    max_batch=st.integers(1, 8),
)
def test_batching_then_splitting_is_the_identity(
    entries: list[tuple[int, int]], max_batch: int
) -> None:
    widths: list[list[int]] = []

    def run(items: Sequence[list[int]]) -> list[list[int]]:
        widths.append([len(item) for item in items])
        together = [value for item in items for value in item]
        together = [value * 10 for value in together]
        return [[together.pop(0) for _ in item] for item in items]

    async def scenario() -> list[list[int]]:
        async with batching(max_batch=max_batch) as (batcher, device):
            await held(batcher, device)
            tasks = await queued(
                *(
                    batcher.submit(key, [100 * n + i for i in range(size)], run, size=size)
                    for n, (key, size) in enumerate(entries)
                )
            )
            device.gate.set()
            return await results(tasks)

    found = asyncio.run(scenario())
    assert found == [
        [(100 * n + i) * 10 for i in range(size)] for n, (_, size) in enumerate(entries)
    ]
    assert all(len(batch) == 1 or sum(batch) <= max_batch for batch in widths)


# -- the window ------------------------------------------------------------------------------------


async def test_a_lone_request_does_not_wait_for_company() -> None:
    async with batching(window_s=LONG_S, company=lambda: 1) as (batcher, device):
        async with asyncio.timeout(LONG_S / 4):
            result, queued_s = await batcher.submit("k", 1, device.run)
    assert result == "<1>"
    assert 0 <= queued_s < LONG_S / 4


async def test_company_on_its_way_is_waited_for() -> None:
    async with batching(window_s=LONG_S, company=lambda: 2) as (batcher, device):
        async with asyncio.timeout(LONG_S / 4):
            (first,) = await queued(batcher.submit("k", 1, device.run))
            for _ in range(50):  # plenty of turns in which a hasty batch would have left
                await asyncio.sleep(0)
            (second,) = await queued(batcher.submit("k", 2, device.run))
            assert await results([first, second]) == ["<1>", "<2>"]
        assert device.passes == [[1, 2]]


async def test_a_full_batch_waits_for_nobody() -> None:
    async with batching(window_s=LONG_S, company=lambda: 9, max_batch=4) as (batcher, device):
        async with asyncio.timeout(LONG_S / 4):
            assert (await batcher.submit("k", 1, device.run, size=4))[0] == "<1>"


async def test_the_window_ends() -> None:
    async with batching(window_s=0.001, company=lambda: 9) as (batcher, device):
        async with asyncio.timeout(LONG_S):
            assert (await batcher.submit("k", 1, device.run))[0] == "<1>"


async def test_closing_ends_the_window() -> None:
    async with batching(window_s=LONG_S, company=lambda: 9) as (batcher, device):
        (waiting,) = await queued(batcher.submit("k", 1, device.run))
        async with asyncio.timeout(LONG_S / 4):
            await batcher.close()
            with pytest.raises(Overloaded):
                await waiting


# -- leaving early ---------------------------------------------------------------------------------


async def test_cancelled_and_expired_entries_leave_before_the_batch_is_built() -> None:
    async with batching() as (batcher, device):
        await held(batcher, device)
        stays, cancelled, expired = await queued(
            batcher.submit("k", "stays", device.run),
            batcher.submit("k", "cancelled", device.run),
            batcher.submit("k", "expired", device.run, budget_s=0.001),
        )
        cancelled.cancel()
        with pytest.raises(DetectorFailed) as failure:
            await expired
        assert failure.value.reason == "budget"
        device.gate.set()
        assert await results([stays]) == ["<stays>"]
        assert device.passes == [["stays"]]
        assert cancelled.cancelled()


async def test_an_entry_that_expired_while_the_loop_was_busy_is_not_run() -> None:
    async with batching() as (batcher, device):
        await held(batcher, device)
        late, marker = await queued(
            batcher.submit("k", "late", device.run, budget_s=0.001),
            batcher.submit("other", "marker", device.run),
        )
        until = time.monotonic() + 0.002
        while time.monotonic() < until:  # the loop stalls, so nobody cancels the entry
            pass
        device.gate.set()
        assert await results([marker]) == ["<marker>"]
        with pytest.raises(DetectorFailed, match="budget"):
            await late
        assert device.passes == [["marker"]]


async def test_a_batch_of_nothing_but_left_entries_is_not_run() -> None:
    async with batching() as (batcher, device):
        await held(batcher, device)
        (gone,) = await queued(batcher.submit("k", "gone", device.run))
        gone.cancel()
        device.gate.set()
        assert (await batcher.submit("k", "next", device.run))[0] == "<next>"
        assert ["gone"] not in device.passes


async def test_one_cancelled_in_the_batch_harms_no_mate() -> None:
    async with batching() as (batcher, device):
        plug = await held(batcher, device)
        inside, release = threading.Event(), threading.Event()

        def run(items: Sequence[int]) -> list[int]:
            inside.set()
            assert release.wait(LONG_S)
            return [item * 2 for item in items]

        first, second, third = await queued(*(batcher.submit("k", i, run) for i in range(3)))
        device.gate.set()
        await plug
        await asyncio.to_thread(inside.wait)
        second.cancel()
        await asyncio.wait({second})
        release.set()
        assert await results([first, third]) == [0, 4]
        assert second.cancelled()


async def test_no_time_left_is_told_at_once() -> None:
    async with batching() as (batcher, device):
        with pytest.raises(DetectorFailed) as failure:
            await batcher.submit("k", 1, device.run, budget_s=0.0)
        assert failure.value.reason == "budget"
        assert device.passes == []


# -- failing ---------------------------------------------------------------------------------------


async def test_one_that_raises_fails_alone() -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise ZeroDivisionError("one")
        return [item * 2 for item in items]

    async with batching() as (batcher, device):
        await held(batcher, device)
        first, bad, third = await queued(*(batcher.submit("k", i, run) for i in range(3)))
        device.gate.set()
        assert await results([first, third]) == [0, 4]
        with pytest.raises(DetectorFailed, match="ZeroDivisionError: one") as failure:
            await bad
        assert failure.value.reason == "error"
        assert isinstance(failure.value.__cause__, ZeroDivisionError)


async def test_one_run_on_the_callers_thread_fails_alike() -> None:
    assert run_here(lambda item: item * 2, 3) == 6
    with pytest.raises(DetectorFailed, match="ZeroDivisionError") as failure:
        run_here(lambda item: item / 0, 1)
    assert failure.value.reason == "error"
    assert isinstance(failure.value.__cause__, ZeroDivisionError)
    with pytest.raises(DetectorFailed) as failure:
        run_here(_no_evidence, 1)
    assert failure.value.reason == "no_evidence"


async def test_after_a_failed_batch_only_those_who_still_wait_are_run_again() -> None:
    runs: list[list[int]] = []
    inside, release = threading.Event(), threading.Event()

    def run(items: Sequence[int]) -> list[int]:
        runs.append(list(items))
        if len(items) > 1:
            inside.set()
            assert release.wait(LONG_S)
            raise ValueError
        return list(items)

    async with batching() as (batcher, device):
        await held(batcher, device)
        stays, leaves = await queued(*(batcher.submit("k", i, run) for i in range(2)))
        device.gate.set()
        await asyncio.to_thread(inside.wait)
        leaves.cancel()
        await asyncio.wait({leaves})
        release.set()
        assert await results([stays]) == [0]
        assert runs == [[0, 1], [0]]


async def test_an_exception_among_the_results_is_for_its_item_alone() -> None:
    def run(items: Sequence[int]) -> list[Any]:
        return [InvalidTensor(str(item)) if item == 1 else item for item in items]

    async with batching() as (batcher, device):
        await held(batcher, device)
        first, bad, third = await queued(*(batcher.submit("k", i, run) for i in range(3)))
        device.gate.set()
        assert await results([first, third]) == [0, 2]
        with pytest.raises(InvalidTensor, match="1"):
            await bad


@pytest.mark.parametrize("count", [0, 2, 5])
async def test_results_that_do_not_match_the_batch_fail_it(count: int) -> None:
    async with batching() as (batcher, device):
        await held(batcher, device)
        tasks = await queued(*(batcher.submit("k", i, lambda items: [0] * count) for i in range(3)))
        device.gate.set()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, DetectorFailed)
            assert (outcome.reason, str(outcome)) == ("error", f"{count} results for 1 entries")


async def test_a_detectors_own_failure_keeps_its_reason() -> None:
    def run(items: Sequence[int]) -> list[int]:
        raise DetectorFailed("no_evidence")

    async with batching() as (batcher, _):
        with pytest.raises(DetectorFailed) as failure:
            await batcher.submit("k", 1, run)
        assert failure.value.reason == "no_evidence"


async def test_one_more_than_the_queue_holds_is_refused_and_room_comes_back() -> None:
    async with batching(capacity=3) as (batcher, device):
        plug = await held(batcher, device)
        tasks = await queued(*(batcher.submit("k", i, device.run) for i in range(2)))
        with pytest.raises(Overloaded):
            await batcher.submit("k", "more", device.run)
        device.gate.set()
        assert await results([plug, *tasks]) == ["hold", "<0>", "<1>"]
        assert (await batcher.submit("k", "more", device.run))[0] == "<more>"


# -- closing ---------------------------------------------------------------------------------------


async def test_closing_finishes_the_running_batch_and_fails_what_waits() -> None:
    async with batching() as (batcher, device):
        plug = await held(batcher, device)
        waiting = await queued(*(batcher.submit("k", i, device.run) for i in range(2)))
        closing = started(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher.submit("k", "late", device.run)
        device.gate.set()
        await closing
        assert (await plug)[0] == "hold"
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, Overloaded)
        assert device.passes == []


async def test_closing_twice_is_closing_once() -> None:
    async with batching() as (batcher, _):
        await asyncio.gather(batcher.close(), batcher.close())
        await batcher.close()


def test_a_loop_that_closes_first_leaves_no_thread_behind() -> None:
    device = Device()
    others = set(threading.enumerate())
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        async with asyncio.timeout(None):
            batcher = Batcher(
                max_batch=1,
                window_s=0.0,
                capacity=9,
                company=lambda: 0,
                on_batch=lambda samples, waiting: None,
            )
            task = started(batcher.submit("hold", "hold", device.hold))
            await asyncio.to_thread(device.entered.wait)
            task.cancel()
            await asyncio.wait({task})

    loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    (thread,) = set(threading.enumerate()) - others
    device.gate.set()
    thread.join(LONG_S)
    assert not thread.is_alive()


def _no_evidence(item: int) -> int:
    raise DetectorFailed("no_evidence")


async def test_a_pass_that_does_not_end_shows_and_does_not_hold_up_the_exit() -> None:
    async with batching() as (batcher, device):
        assert batcher.busy_s == 0
        held = started(batcher.submit("k", 1, device.hold))
        assert await asyncio.to_thread(device.entered.wait, LONG_S)
        before_s = batcher.busy_s
        assert 0 < before_s <= batcher.busy_s
        await batcher.close(0.01)
        assert not device.gate.is_set()
        device.gate.set()
        assert (await held)[0] == 1
        await batcher.close()
        assert batcher.busy_s == 0
