from __future__ import annotations

import asyncio
import gc

import pytest

from proxy.tasks import MOST_LET_GO, Tasks


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("broken")


async def test_a_task_nobody_holds_is_not_collected() -> None:
    tasks, done = Tasks(), asyncio.Event()

    async def work() -> None:
        # Only the task itself refers to what it waits for: without a strong reference elsewhere
        # the two are garbage together.
        await asyncio.get_running_loop().create_future()

    task = tasks.start(work())
    await asyncio.sleep(0)
    task.add_done_callback(lambda _: done.set())
    del task
    gc.collect()
    assert len(tasks) == 1
    await tasks.stop()
    assert done.is_set()


async def test_results_and_failures_reach_who_awaits() -> None:
    async def seven() -> int:
        return 7

    tasks = Tasks()
    assert await tasks.start(seven()) == 7
    with pytest.raises(ValueError, match="broken"):
        await tasks.start(fail(), quiet=True)
    await asyncio.sleep(0)
    assert len(tasks) == 0


@pytest.mark.parametrize("quiet", [True, False])
async def test_a_failure_is_logged_unless_somebody_awaits_it(
    quiet: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = Tasks()
    task = tasks.start(fail(), quiet=quiet)
    await asyncio.wait([task])
    await tasks.stop()
    assert ("broken" in caplog.text) is not quiet


async def test_stop_waits_for_what_it_cancels() -> None:
    tasks, tidied = Tasks(), []

    async def tidy() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            tidied.append(True)

    for _ in range(3):
        tasks.start(tidy())
    tasks.start(fail(), quiet=True)
    await asyncio.sleep(0)
    await tasks.stop()
    assert tidied == [True] * 3
    assert len(tasks) == 0


async def test_a_cancelled_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    tasks.start(forever()).cancel()
    await tasks.stop()
    assert caplog.text == ""


async def test_what_is_let_go_ends_by_itself_within_bounds() -> None:
    tasks, gate = Tasks(), asyncio.Event()

    async def work() -> int:
        await gate.wait()
        return 1

    started = [tasks.start(work(), quiet=True) for _ in range(MOST_LET_GO + 1)]
    for task in started:
        tasks.let_go(task)
    gate.set()
    await asyncio.wait(started)
    assert [task.cancelled() for task in started] == [False] * MOST_LET_GO + [True]
    late = tasks.start(work(), quiet=True)
    tasks.let_go(late)
    assert await late == 1
    tasks.let_go(late)  # over already
    await asyncio.sleep(0)
    assert len(tasks) == 0
