"""Hot reload: a changed configuration file is applied, or refused and the old one kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from proxy.config import Config
from proxy.errors import ConfigError

log = logging.getLogger(__name__)

# Bound to sockets, channels, threads or the device when the process starts; `drain_seconds` is
# known to the supervisor, which does not read the file again.
RESTART_FIELDS = (
    "listen",
    "tls",
    "upstream",
    "upstream_tls",
    "admin",
    "admin_tls",
    "metrics",
    "control",
    "audit",
    "batching",
    "capture",
    "drain_delay_seconds",
    "drain_seconds",
    "max_message_bytes",
    "max_connection_age_s",
    "device",
    "history",
    "inflow",
    "records",
    "request_compression",
    "response_compression",
    "tracing",
    "upstream_shared_memory",
    "upstream_shared_memory_from_kb",
    "upstream_shared_memory_mb",
)

_Fingerprint = tuple[int, int, int] | None


def needs_restart(old: Config, new: Config) -> list[str]:
    """Return the names of changed fields that take effect only in a new process."""
    return [field for field in RESTART_FIELDS if getattr(old, field) != getattr(new, field)]


class Watcher:
    """Keeps a configuration in step with its file.

    Args:
        path: the file watched; a symbolic link is followed, so a Kubernetes ConfigMap works.
        config: the configuration in force, loaded from that file.
        load: reads the file (and repeats any command-line override); raises ConfigError.
        apply: puts a configuration in force as a whole, or raises ConfigError and changes nothing.
        on_applied: told the generation in force; 1 is the configuration the process started with.
        on_refused: told that the file was refused.
        poll_s: seconds between looks at the file.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        *,
        load: Callable[[], Config],
        apply: Callable[[Config], Awaitable[None]],
        on_applied: Callable[[int], None],
        on_refused: Callable[[], None],
        poll_s: float = 1.0,
    ) -> None:
        self.config = config
        self.generation = 1
        self.refusal = ""
        """Why the file is not what is in force; empty if it is."""
        self._path = path
        self._load = load
        self._apply = apply
        self._on_applied = on_applied
        self._on_refused = on_refused
        self._poll_s = poll_s
        self._tried = self._seen = self._fingerprint()
        self._requested = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        on_applied(self.generation)

    def request(self) -> None:
        """Ask for a reload soon; for signal handlers (SIGHUP)."""
        self._requested.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._requested.wait()
            if self._requested.is_set():
                self._requested.clear()
                await self.reload()
            else:
                await self.poll()

    async def poll(self) -> None:
        """Look at the file once; reload when it changed and has been quiet since the last look.

        Waiting for quiet keeps a half-written file, which may well be valid YAML that lacks the
        last models, from being put in force.
        """
        before, self._seen = self._seen, self._fingerprint()
        if self._seen == before != self._tried:
            await self.reload()

    async def reload(self) -> bool:
        """Read the file and apply it now. False: it was refused and nothing changed."""
        async with self._one_at_a_time:
            self._tried = self._seen = self._fingerprint()
            try:
                fresh = await asyncio.to_thread(self._load)
                waiting = needs_restart(self.config, fresh)
                kept = {field: getattr(self.config, field) for field in waiting}
                fresh = fresh.model_copy(update=kept)
                await self._apply(fresh)
            except ConfigError as error:
                log.error("configuration refused, the old one stays in force:\n%s", error)
                self.refusal = str(error)
                self._on_refused()
                return False
            except Exception:  # a defect in applying must not end the watching
                log.exception("configuration could not be applied, the old one stays in force")
                self.refusal = "it could not be applied: the log says why"
                self._on_refused()
                return False
            self.config, self.refusal = fresh, ""
            self.generation += 1
            self._on_applied(self.generation)
            log.info("configuration generation %d in force", self.generation)
            if waiting:
                log.warning("changed on file but only a restart applies: %s", ", ".join(waiting))
            return True

    def _fingerprint(self) -> _Fingerprint:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size
