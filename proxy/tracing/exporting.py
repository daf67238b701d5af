"""Spans on their way to the collector: bounded, counted where they are lost, never waited for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

MOST_PER_EXPORT = 512
"""Spans in one message to the collector; the SDK's own default."""

DELAY_MS = 1000
"""How long spans wait for others, milliseconds."""

_LAST_S = 1.0
"""What a call to the collector gets to notice that it has been ended."""

OnLost = Callable[[int], None]
"""Told how many spans the collector will never have; on any thread."""


class _Counted(SpanExporter):
    """Another exporter, with a count of what it took."""

    def __init__(self, inner: SpanExporter, on_lost: OnLost) -> None:
        self._inner = inner
        self._on_lost = on_lost
        self._is_shut = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._on_lost(len(spans))
        return result

    def shutdown(self) -> None:
        if not self._is_shut:
            self._is_shut = True
            self._inner.shutdown()


class Outbox(BatchSpanProcessor):
    """The SDK's batches, which drop the newest span rather than the oldest when they are full.

    Args:
        exporter: sends them, on a thread of the SDK's.
        capacity: most spans waiting.
        on_lost: told of each that is dropped or could not be sent.
        delay_ms: how long spans wait for others.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        capacity: int,
        on_lost: OnLost,
        *,
        delay_ms: float = DELAY_MS,
    ) -> None:
        self._counted = _Counted(exporter, on_lost)
        self._capacity = capacity
        self._on_lost = on_lost
        self._ended = 0
        self._is_closed = False
        super().__init__(
            self._counted,
            max_queue_size=capacity,
            schedule_delay_millis=delay_ms,
            max_export_batch_size=min(capacity, MOST_PER_EXPORT),
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended; on the event loop's thread."""
        # Looked at here, since the SDK would write a line to the log for each.
        if self._is_closed or self._ended - self._counted.taken >= self._capacity:
            self._on_lost(1)
            return
        self._ended += 1
        super().on_end(span)

    async def close(self, limit_s: float) -> None:
        """Send what is waiting, for so many seconds at most; what is left then is lost."""
        self._is_closed = True
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(RuntimeError):  # the loop has not waited
                loop.call_soon_threadsafe(done.set)

        # Not the loop's own threads: the process waits for those when it ends.
        threading.Thread(target=end, name="last spans", daemon=True).start()
        for wait_s in (limit_s, _LAST_S):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await done.wait()
            self._counted.shutdown()  # ends the call under way, and refuses others
