"""Captures suspicious requests on a thread of its own: a slow disk costs captures, not requests."""

from __future__ import annotations

import base64
import contextlib
import hmac
import logging
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from proxy.capture.files import facts, pack
from proxy.capture.metrics import CaptureMetrics
from proxy.capture.settings import Capture
from proxy.capture.spool import TAG_DIGITS, Spool, TooLargeError
from proxy.flow import Flow, Verdict
from proxy.keyfile import read_key
from proxy.records.record import is_marked, notable_samples
from proxy.records.thumbnails import thumbnails

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

MOST_WAITING = 256
"""Requests waiting to be written."""
MOST_BYTES = 64 << 20
"""Bytes of these; one alone may be larger."""
CLOSE_S = 5.0
SWEEP_S = 60.0
_MEGABYTE = 1_000_000
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Item:
    when: datetime
    flow: Flow
    request: bytes
    pixels: Tensor | None
    calibration: str
    size: int


def capturer(
    settings: Capture | None,
    shared_key: bytes | None,
    metrics: CaptureMetrics,
    digest_of: Callable[[str], str],
) -> Capturer | None:
    """What captures as the settings say; None without any.

    Args:
        shared_key: that all workers have, and that goes with them. None: there is one process.

    Raises:
        ConfigError: the folder or the key file cannot be used.
    """
    if settings is None:
        return None
    if settings.key_file is not None:
        key = read_key("capture", settings.key_file)
    else:
        key = shared_key or os.urandom(_KEY_BYTES)
    return Capturer(settings, key=key, metrics=metrics, digest_of=digest_of)


class Capturer:
    """Writes suspicious requests to a spool.

    Args:
        settings: what is kept, and how much.
        key: principals' names are hashed with.
        metrics: told what is kept and what is not.
        digest_of: a model's calibration in force.
        sweep_s: seconds between looks for what is too old.

    Raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(
        self,
        settings: Capture,
        *,
        key: bytes,
        metrics: CaptureMetrics,
        digest_of: Callable[[str], str],
        sweep_s: float = SWEEP_S,
    ) -> None:
        self.takes_pictures = settings.inputs == "thumbnail"
        """Whether flows are to bring their pixels."""
        self._inputs = settings.inputs
        self._spool = Spool(
            settings.folder,
            max_bytes=settings.max_mb * _MEGABYTE,
            keep_s=3600 * settings.keep_hours,
            share=settings.share,
        )
        self._key, self._metrics, self._digest_of = key, metrics, digest_of
        self._sweep_s = sweep_s
        self._failing = False
        self._waiting: queue.Queue[_Item | None] = queue.Queue(MOST_WAITING)
        self._counting = threading.Lock()
        self._bytes = 0
        self._writer = threading.Thread(target=self._run, name="capture", daemon=True)
        self._writer.start()

    def note(self, flow: Flow, request: bytes, pixels: Tensor | None) -> None:
        """Capture a finished request if it is suspicious; never blocks.

        Args:
            flow: must not change afterwards.
            request: as it was inspected.
            pixels: (B, C, H, W) in [0, 1], where there are any.
        """
        if flow.verdict is not Verdict.SUSPICIOUS and not is_marked(flow):
            return
        seen = pixels if self.takes_pictures else None
        size = len(request) + (0 if seen is None else seen.numel() * seen.element_size())
        with self._counting:
            if self._bytes and self._bytes + size > MOST_BYTES:
                self._metrics.dropped("queue")
                return
            self._bytes += size
        calibration = self._digest_of(flow.model)
        item = _Item(datetime.now(UTC), flow, request, seen, calibration, size)
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._done(size)
            self._metrics.dropped("queue")

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write what is waiting. Nothing may be noted afterwards.

        Args:
            timeout_s: how long a stuck disk may hold up the exit.
        """
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout_s)
        self._writer.join(timeout_s)
        if self._writer.is_alive():
            log.error("captures: gave up on %d", self._waiting.qsize())

    def _done(self, size: int) -> None:
        with self._counting:
            self._bytes -= size

    def _run(self) -> None:
        self._try(None)
        while True:
            try:
                item = self._waiting.get(timeout=self._sweep_s)
            except queue.Empty:
                self._try(None)
                continue
            if item is None:
                return
            self._try(item)
            self._done(item.size)
            del item  # it may be large, and the next may be long in coming

    def _try(self, item: _Item | None) -> None:
        """Write an item, or without one remove what is too old."""
        try:
            if item is None:
                self._spool.sweep()
            else:
                self._spool.put(*self._packed(item))
            self._failing = False
        except TooLargeError:
            self._metrics.dropped("too_large")
        except OSError as error:
            if item is not None:
                self._metrics.dropped("disk")
            if not self._failing:  # once per outage
                log.error("captures cannot be written: %s", error)
            self._failing = True
        except Exception:  # the edge of the thread: one odd request must not end it
            self._metrics.dropped("error")
            log.exception("a request could not be captured")
        self._metrics.kept(self._spool.files, self._spool.bytes)

    def _packed(self, item: _Item) -> tuple[str, bytes]:
        """Whose it is, and the file's content."""
        named = b"capture\0" + item.flow.principal.encode(errors="surrogatepass")
        tag = hmac.digest(self._key, named, "sha256").hex()[:TAG_DIGITS]
        said = facts(item.when, item.flow, principal=tag, calibration=item.calibration)
        kind, payload = "none", b""
        if self._inputs == "full":
            kind, payload = "full", item.request
        elif item.pixels is not None:
            rows = notable_samples(item.flow)[:1]
            for picture in thumbnails(item.pixels, rows).values():
                kind, payload = "thumbnail", base64.b64decode(picture)
        return tag, pack(said, item.request, kind, payload)
