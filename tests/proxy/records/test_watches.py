"""Following the records: those who do not read, too many, the end."""

from __future__ import annotations

import asyncio
import gc

import pytest

from proxy.records.record import record_of
from proxy.records.watches import MAX_WATCHES, QUEUE, TooManyWatches, Watches, told
from tests.proxy.records.flows import flow, suspicious

RECORDS = [record_of(suspicious(id_=f"r{i}"), 0, float(i)) for i in range(QUEUE + 10)]


def test_who_never_reads_loses_the_oldest_and_holds_up_nobody() -> None:
    dropped: list[int] = []
    watches = Watches(dropped.append)
    lazy = watches.open(None, everything=False)
    watches.tell(RECORDS, notable=True)
    assert sum(dropped) == 10
    assert len(watches) == 1
    del lazy
    gc.collect()
    assert len(watches) == 0


async def test_what_was_lost_is_the_oldest() -> None:
    watches = Watches(lambda _: None)
    watch = watches.open(None, everything=False)
    watches.tell(RECORDS, notable=True)
    watches.close()
    assert [record.id async for record in watch] == [record.id for record in RECORDS[10:]]


async def test_model_and_everything() -> None:
    watches = Watches(lambda _: None)
    one = watches.open("cnn", everything=False)
    other = watches.open("vit", everything=True)
    both = watches.open(None, everything=True)
    assert watches.wants_everything
    vit = record_of(flow(model="vit"), 0, 1.0)
    watches.tell(RECORDS[:1], notable=True)
    watches.tell([vit], notable=False)
    watches.close()
    assert [record.model async for record in one] == ["cnn"]
    assert [record.model async for record in other] == ["vit"]
    assert [record.model async for record in both] == ["cnn", "vit"]


async def test_no_more_than_so_many_and_room_when_one_has_left() -> None:
    watches = Watches(lambda _: None)
    opened = [watches.open(None, everything=True) for _ in range(MAX_WATCHES)]
    with pytest.raises(TooManyWatches, match="try again"):
        watches.open(None, everything=False)
    opened[3].close()
    assert len(watches) == MAX_WATCHES - 1
    watches.open(None, everything=False)


async def test_a_reader_waits_until_told_and_ends_with_the_server() -> None:
    watches = Watches(lambda _: None)
    watch = watches.open(None, everything=False)
    reading = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    assert not reading.done()
    watches.tell(RECORDS[:1], notable=True)
    assert (await reading).id == "r0:0"
    last = asyncio.ensure_future(anext(watch, None))
    await asyncio.sleep(0)
    watches.close()
    assert await last is None
    assert [record async for record in watches.open(None, everything=True)] == []


async def test_who_stops_reading_json_leaves() -> None:
    watches = Watches(lambda _: None)
    lines = told(watches.open(None, everything=False))
    watches.tell(RECORDS[:1], notable=True)
    assert (await anext(lines))["id"] == "r0:0"
    await lines.aclose()  # type: ignore[attr-defined]
    assert len(watches) == 0
