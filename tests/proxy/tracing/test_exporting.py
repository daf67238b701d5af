"""Spans on their way: bounded, counted where they are lost, and never waited for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from proxy.tracing.exporting import Outbox
from tests.defended import eventually

SLOW_MS = 60_000.0
"""Nothing goes out by itself within a test."""


class Exporter(SpanExporter):
    """Takes spans as it is told to."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.result = SpanExportResult.SUCCESS
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.shut = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.sent.append(len(spans))
        return self.result

    def shutdown(self) -> None:
        self.shut += 1
        self.gate.set()


class Subject:
    def __init__(self, capacity: int = 64, delay_ms: float = SLOW_MS) -> None:
        self.exporter, self.lost = Exporter(), 0
        self.outbox = Outbox(self.exporter, capacity, self.lose, delay_ms=delay_ms)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.outbox)
        self.tracer = provider.get_tracer("t")

    def lose(self, count: int) -> None:
        self.lost += count

    def end(self, count: int) -> None:
        for _ in range(count):
            self.tracer.start_span("s").end()


async def test_what_is_waiting_is_sent_at_the_end() -> None:
    subject = Subject()
    subject.end(5)
    await subject.outbox.close(5)
    assert (sum(subject.exporter.sent), subject.lost, subject.exporter.shut) == (5, 0, 1)


async def test_it_sends_without_being_told() -> None:
    subject = Subject(delay_ms=1)
    subject.end(3)
    await eventually(lambda: sum(subject.exporter.sent) == 3)
    await subject.outbox.close(5)


async def test_one_too_many_is_dropped_at_once_and_counted() -> None:
    subject = Subject()
    subject.exporter.gate.clear()
    subject.end(64)  # a whole batch: it goes out, and is held
    await eventually(subject.exporter.entered.is_set)
    subject.end(64 + 36)
    assert subject.lost == 36
    subject.exporter.gate.set()
    await subject.outbox.close(5)
    assert (sum(subject.exporter.sent), subject.lost) == (128, 36)


async def test_a_full_outbox_costs_no_time() -> None:
    subject = Subject()
    subject.exporter.gate.clear()
    started = time.perf_counter()
    subject.end(5000)
    assert time.perf_counter() - started < 2  # 40 us each at the very most
    await subject.outbox.close(0.05)


@pytest.mark.parametrize("raises", [False, True])
async def test_what_the_collector_refuses_is_counted(raises: bool) -> None:
    subject = Subject()
    subject.exporter.result = SpanExportResult.FAILURE
    subject.exporter.error = RuntimeError("broken") if raises else None
    subject.end(7)
    await subject.outbox.close(5)
    assert subject.lost == 7


async def test_the_end_waits_no_longer_than_it_may() -> None:
    subject = Subject()
    subject.exporter.gate.clear()
    subject.exporter.result = SpanExportResult.FAILURE
    subject.end(5)
    async with asyncio.timeout(5):
        await subject.outbox.close(0.05)
    assert subject.exporter.shut == 1
    assert subject.lost == 5


async def test_what_ends_after_the_end_is_lost() -> None:
    subject = Subject()
    await subject.outbox.close(5)
    subject.end(2)
    assert (subject.exporter.sent, subject.lost) == ([], 2)


async def test_the_loop_runs_on_while_it_ends() -> None:
    subject = Subject()
    subject.exporter.gate.clear()
    subject.end(1)
    closing = asyncio.ensure_future(subject.outbox.close(5))
    await eventually(subject.exporter.entered.is_set)
    assert not closing.done()
    subject.exporter.gate.set()
    await closing
