"""One process's life: build, start, serve, reload, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from proxy.admin import Admin, Status
from proxy.audit import AuditLog
from proxy.batcher import Batcher
from proxy.capture.capturer import capturer
from proxy.config import Config
from proxy.console.routes import Console
from proxy.control.hosting import ControlHost
from proxy.control.policy_file import PolicyFile
from proxy.defences import Defences, check
from proxy.drain import Drain, Mode, Times
from proxy.drift.endpoints import WorkerPages
from proxy.errors import ConfigError
from proxy.handoff import HandoffUpstream
from proxy.identity.admin_tls import AdminTls
from proxy.identity.rotation import FrontTls, follow
from proxy.inflow.descriptors import connections_within
from proxy.inflow.memory import MemoryGuard
from proxy.inflow.sockets import end_connection, open_connections
from proxy.inflow.untaken import Untaken
from proxy.inflow.waiting import Waiting
from proxy.keyfile import read_key
from proxy.metrics import Metrics
from proxy.metrics_listener import listening
from proxy.monitor import Monitor
from proxy.pipeline import Parts, Pipeline
from proxy.records.kept import Subject
from proxy.records.record import label_of
from proxy.records.records import Records
from proxy.records.sketch import KEY_BYTES
from proxy.records.snapshot import empty
from proxy.records.watches import told
from proxy.reflection import add_reflection
from proxy.service import TritonService
from proxy.tasks import Tasks
from proxy.tracing.settings import MISSING
from proxy.unpacking import Unpacker, UnpackingServer, channel_options
from proxy.upstream import Upstream
from proxy.watcher import Watcher

if TYPE_CHECKING:  # torch is loaded only when some model has detectors
    from proxy.drift.watch import Watch
    from proxy.explorer.desk import Desk
    from proxy.history.history import History
    from proxy.tracing.tracing import Tracing

log = logging.getLogger(__name__)

_COMPRESSION = {
    "none": None,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}

# Triton's own keepalive rules, so that a client tuned for Triton is not sent away here.
_KEEPALIVE = (
    ("grpc.http2.max_pings_without_data", 2),
    ("grpc.http2.min_ping_interval_without_data_ms", 300_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.keepalive_timeout_ms", 20_000),
)

_SPARE_STREAMS = 1024
"""Calls on one connection beyond those in flight: health, and those to be refused. gRPC keeps a
call whose message never comes, some 18 KB, for as long as the connection lasts."""
_FOR_EVER_MS = 2**31 - 1
_COUNT_S = 0.5
HUNG_S = 60.0
"""A pass on the device that takes longer than this never ends: the longest take seconds."""
_LEAST_GRACE_S = 0.2
"""What calls in progress get to end when the server stops, seconds."""


class Server:
    """A sidecar process; also what its admin listener shows.

    Args:
        config: the configuration to start with.
        path: its file, watched for changes; None when there is none.
        overrides: command-line settings that win over the file, also after a reload.
        share_port: let other processes listen on the same port (workers).
        admin: where to serve the admin endpoints instead of `config.admin`.
        history_file: descriptor of the file in which all workers keep their history.
        records_key: of the sample of scores, equal in all workers.

    Raises:
        ConfigError: a calibration or part cannot be used.
    """

    def __init__(
        self,
        config: Config,
        *,
        path: Path | None = None,
        overrides: Mapping[str, Any] | None = None,
        share_port: bool = False,
        admin: Path | None = None,
        history_file: int | None = None,
        records_key: bytes | None = None,
    ) -> None:
        self.address = ""
        """Where clients connect, known after `start`."""
        self.admin_address = ""
        """Where the admin endpoints are, known after `start`."""
        self.metrics_address = ""
        """Where the read-only listener is, known after `start`; empty where it is off."""
        self.control_address = ""
        """Where the control API is, known after `start`; empty where it is off."""
        self._config = config
        self._file = None if path is None else PolicyFile(path, overrides)
        self._policy_digest = "" if self._file is None else self._file.digest()
        self._share_port = share_port
        self._history_file = history_file
        self._admin_at: str | Path = admin or config.admin
        self._background = Tasks()
        self._finishing = Tasks()
        self._drained = asyncio.Event()
        self._stopping = asyncio.Lock()
        self._stopped = False
        self._metrics = Metrics()
        sealed_by = config.audit.key_file
        self._audit = AuditLog(
            config.audit.path,
            self._metrics.audit_dropped,
            key=None if sealed_by is None else read_key("audit", sealed_by),
            worker="" if admin is None else admin.stem,
        )
        self._front_tls = self._new_front_tls(config)
        self._upstream = _upstream(config)
        self._unpacker = Unpacker(config.max_message_bytes)
        self._waiting, self._untaken, self._memory = self._new_inflow(config)
        self._tracing = _tracing(config, self._metrics, "" if admin is None else admin.stem)
        self._history = self._new_history(config)
        defences = self._in_force = self._defences(config)
        self._records = Records(
            config.records, key=records_key, on_drop=self._metrics.watch_dropped
        )
        self._captures = capturer(
            *(config.capture, records_key, self._metrics.capture),
            lambda model: self._in_force.digest(model),
        )
        self._drift_key = b"drift" + (records_key or os.urandom(KEY_BYTES))
        self._drift_watch: Watch | None = None
        self._batcher: Batcher | None = None
        self._pipeline = Pipeline(
            Parts(config, defences.find),
            upstream=self._upstream,
            batcher=None,
            metrics=self._metrics,
            audit=self._audit,
            records=self._records,
            captures=self._captures,
        )
        self._pipeline.is_memory_short = lambda: self._memory.is_short
        self._pipeline.are_answers_stuck = lambda: self._untaken.is_full
        self._drain = self._new_drain(config)
        self._provide_batcher(config, defences)
        if self._history is not None:
            self._pipeline.use_history(self._history)
        self._monitor = Monitor(self._upstream, defences, self._metrics.upstream_ready)
        # A worker's admin listener is a socket that only its supervisor reaches.
        self._control = None if admin is not None else ControlHost(self, config, self._file)
        access = None if self._control is None else self._control.access
        console = None if self._control is None else Console(self, self._control.control)
        pages = console or WorkerPages(lambda: self._drift_watch)
        self._admin_tls = None if admin is not None else self._new_admin_tls(config)
        self._admin = Admin(
            *(self, pages),
            access=access,
            is_alive=self._monitor.is_alive,
            tls=None if self._admin_tls is None else self._admin_tls.context,
        )
        # A worker's metrics are shown by its supervisor, with those of the others.
        self._shown_at = config.metrics if admin is None else None
        self._open = contextlib.AsyncExitStack()
        self._explorer: Desk | None = None
        self._watcher: Watcher | None = None
        self._server = self._build()

    def _build(self) -> grpc.aio.Server:
        config, inflow = self._config, self._config.inflow
        connections = connections_within(inflow.max_connections)
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_send_message_length", config.max_message_bytes),
                ("grpc.so_reuseport", int(self._share_port)),
                ("grpc.max_connection_age_ms", _connection_age_ms(config)),
                ("grpc.max_concurrent_streams", config.max_in_flight + _SPARE_STREAMS),
                ("grpc.max_allowed_incoming_connections", connections),
                ("grpc.keepalive_time_ms", round(1000 * inflow.keepalive_s)),
                *_KEEPALIVE,
                *channel_options(accepts=config.request_compression == "accept"),
            ),
            compression=_COMPRESSION[config.response_compression],
        )
        service = TritonService(
            *(self._pipeline, self._upstream, self._metrics, self._tracing),
            unpacker=self._unpacker,
            waiting=self._waiting,
            untaken=self._untaken,
        )
        server.add_generic_rpc_handlers((service,))
        small = UnpackingServer(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._monitor.health, small)
        add_reflection(server)
        return server

    async def start(self) -> None:
        """Listen, and begin to watch Triton and the configuration file.

        Raises:
            ConfigError: an address cannot be listened on.
        """
        try:
            await self._listen()
        except ConfigError:
            await self.stop()
            raise
        if self._history is not None:
            await self._history.start()
        self._follow()
        self._background.start(self._monitor.run())
        self._background.start(self._upstream.run())
        self._background.start(self._count())
        self._follow_certificates()
        self._background.start(self._memory.run())
        if self._file is not None:
            self._watcher = Watcher(
                self._file.path,
                self._config,
                load=self._file.load,
                apply=self._apply,
                on_applied=self._metrics.config_loaded,
                on_refused=self._metrics.config_reload_failed,
            )
            self._background.start(self._watcher.run())
        else:
            self._metrics.config_loaded(1)
        log.info("listening on %s, upstream %s", self.address, self._config.upstream)
        log.info("admin on %s", self.admin_address)
        if self._control is not None:
            scheme = "http" if self._admin_tls is None else "https"
            log.info("console on %s://%s/console/", scheme, self.admin_address)

    async def _listen(self) -> None:
        config = self._config
        try:
            if self._front_tls is None:
                port = self._server.add_insecure_port(config.listen)
            else:
                port = self._server.add_secure_port(config.listen, self._front_tls.credentials)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {config.listen}: {error}") from error
        self.address = f"{config.listen.rpartition(':')[0]}:{port}"
        await self._upstream.open()
        await self._monitor.tick(refresh=True)
        await self._server.start()
        try:
            self.admin_address = await self._admin.start(self._admin_at)
        except OSError as error:
            raise ConfigError(f"cannot listen on {self._admin_at} (admin): {error}") from error
        shown = listening(self, self._shown_at)
        self.metrics_address = await self._open.enter_async_context(shown)
        if self._control is not None:
            self.control_address = await self._control.start()

    async def run(self) -> int:
        """Serve until drained by signal or request; returns the exit status, 0.

        What a drain gave up on is in the log; the drain itself was orderly.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: self._begin_drain(self._drain.signalled()))
        loop.add_signal_handler(signal.SIGINT, self._begin_drain, "now")  # somebody waits for us
        # Also without a file to read again: the default action of SIGHUP is to end the process.
        loop.add_signal_handler(signal.SIGHUP, self._request_reload)
        await self._drained.wait()
        return 0

    def _new_inflow(self, config: Config) -> tuple[Waiting, Untaken, MemoryGuard]:
        waiting = Waiting(config.inflow.max_waiting, on_end=self._metrics.call_gave_way)
        untaken = Untaken(
            config.most_untaken_bytes,
            lambda peer: end_connection(peer, _port(self.address)),
            on_end=self._metrics.connection_gave_way,
        )
        memory_mb = config.inflow.max_memory_mb
        return waiting, untaken, MemoryGuard(memory_mb and memory_mb << 20, waiting, untaken)

    def _new_front_tls(self, config: Config) -> FrontTls | None:
        if config.tls is None:
            return None
        metrics = self._metrics
        return FrontTls(config.tls, metrics.certificate_expiry, metrics.certificate_reload_failed)

    def _new_admin_tls(self, config: Config) -> AdminTls | None:
        if config.admin_tls is None:
            return None
        metrics = self._metrics
        told = metrics.certificate_expiry, metrics.certificate_reload_failed
        return AdminTls(config.admin_tls, *told)

    def _follow_certificates(self) -> None:
        if self._admin_tls is not None:
            self._background.start(self._admin_tls.rotation.run())
        if self._front_tls is not None:
            self._background.start(self._front_tls.rotation.run())
        tls = self._config.upstream_tls
        if tls is not None:
            files = [file for file in (tls.ca_file, tls.cert_file, tls.key_file) if file]
            self._background.start(follow(files, self._upstream.renew_certificates))

    # -- drain -----------------------------------------------------------------------------------

    def _new_drain(self, config: Config) -> Drain:
        times = Times(config.drain_delay_seconds, config.drain_seconds, config.max_connection_age_s)
        return Drain(self._pipeline, times, lambda: open_connections(_port(self.address)))

    def _begin_drain(self, mode: Mode) -> None:
        if self._drain.ask(mode):
            self._monitor.drain()
            self._finishing.start(self._finish())

    async def _finish(self) -> None:
        """Let clients go and finish what is in flight, stop. NOT_SERVING was said already."""
        grace_s = await self._drain.run()
        # A request is out of the pipeline before its answer is out of the socket.
        await self.stop(grace_s=max(_LEAST_GRACE_S, grace_s))
        self._drained.set()

    async def stop(self, *, grace_s: float = _LEAST_GRACE_S) -> None:
        """Stop listening and release everything; what is in flight is cancelled after the grace.

        Again, or while a drain does it, is harmless: returns when it is done.
        """
        async with self._stopping:
            if not self._stopped:
                self._stopped = True
                await self._stop(grace_s)

    async def _stop(self, grace_s: float) -> None:
        if self._control is not None:
            await self._control.stop()
        await self._background.stop()
        self._monitor.health.close()
        await self._server.stop(grace=grace_s)
        self._pipeline.flush()
        await self._pipeline.close()
        self._unpacker.close()
        await self._records.close()
        if self._history is not None:
            await self._history.close()
        if self._batcher is not None:
            await self._batcher.close()
        await self._upstream.close()
        if self._tracing is not None:
            await self._tracing.close()
        await self._admin.stop()
        await self._open.aclose()
        self._audit.close()
        if self._captures is not None:
            await asyncio.to_thread(self._captures.close)

    # -- reload ----------------------------------------------------------------------------------

    def _request_reload(self) -> None:
        if self._watcher is None:
            log.warning("nothing to reload: started without a configuration file")
        else:
            self._watcher.request()

    async def _apply(self, config: Config) -> None:
        """Put a configuration in force as a whole, or raise ConfigError and change nothing."""
        if self._history is None:
            self._history = self._new_history(config)
            if self._history is not None:
                await self._history.start()
                self._pipeline.use_history(self._history)
        defences = await asyncio.to_thread(self._defences, config)
        defences.learn_from(self._in_force)
        await defences.refresh(self._upstream)
        self._provide_batcher(config, defences)
        self._config = config
        self._pipeline.flush()  # what has finished counts for the models of its time
        self._pipeline.parts = Parts(config, defences.find)
        self._monitor.use(defences)
        self._in_force = defences
        self._follow()
        if self._file is not None:
            self._policy_digest = self._file.loaded

    def _follow(self) -> None:
        """Keep scores of the models as they are defended now."""
        self._records.follow(
            Subject(
                each.name,
                tuple(part.name for part in each.model.detectors),
                self._in_force.digest(each.name),
                "" if each.spec is None else ",".join(each.spec.versions),
            )
            for each in self._in_force.models()
            if each.model is not None and each.wants_scoring
        )
        self._metrics.records(self._records.kept, self._records.watching)
        if self._drift_watch is None and self._in_force.needs_device:
            from proxy.drift.watch import Watch  # loads torch

            self._drift_watch = Watch(
                self._metrics.drift, key=self._drift_key, decides=self._control is not None
            )
            self._background.start(self._drift_watch.run())
        if self._drift_watch is not None:
            self._drift_watch.follow(self._in_force)

    def _new_history(self, config: Config) -> History | None:
        """The memory of queries, if some model wants one."""
        if not any(model.remembers for model in config.models.values()):
            return None
        from proxy.history.history import History  # loads torch

        return History(config.history, self._metrics, file=self._history_file)

    def _defences(self, config: Config) -> Defences:
        salts = None if self._history is None else self._history.salts
        return Defences(config, self._metrics, salts)

    def _provide_batcher(self, config: Config, defences: Defences) -> None:
        if self._batcher is not None or not defences.needs_device:
            return
        self._batcher = Batcher(
            max_batch=config.batching.max_batch,
            window_s=config.batching.window_us / 1e6,
            capacity=config.batching.queue,
            company=lambda: self._pipeline.in_flight,
            on_batch=self._on_batch,
        )
        self._pipeline.use_batcher(self._batcher)

    def _on_batch(self, samples: int, waiting: int) -> None:
        self._metrics.batch(samples)
        self._metrics.queue_depth(waiting)

    async def _count(self) -> None:
        """Keep the metrics current between scrapes, for whoever reads a worker's files."""
        while True:
            await asyncio.sleep(_COUNT_S)
            self._pipeline.flush()
            self._follow()
            self._count_handoffs()
            self._in_force.note_ages()
            self._look_at_device()
            if self._history is not None:
                self._history.count()

    def _look_at_device(self) -> None:
        """A pass that does not end leaves everything to `on_failure`, until somebody notices."""
        hangs = self._batcher is not None and self._batcher.busy_s > HUNG_S
        if hangs and self._monitor.is_alive():
            log.error("a pass on the device has been running for %g s: not alive any more", HUNG_S)
        self._monitor.live(not hangs)

    def _count_handoffs(self) -> None:
        if isinstance(self._upstream, HandoffUpstream):
            self._metrics.upstream_shared_memory(
                self._upstream.counts, leased_bytes=self._upstream.leased_bytes
            )

    # -- AdminTarget -----------------------------------------------------------------------------

    async def status(self) -> Status:
        """How it is doing now."""
        ready = self._monitor.is_ready
        return Status(
            ready,
            self._drain.begun,
            self._pipeline.in_flight,
            workers_ready=int(ready),
            drained=self._drain.is_drained,
        )

    async def drain(self, mode: Mode = "exit") -> None:
        """Start the drain."""
        self._begin_drain(mode)

    async def reload(self) -> bool:
        """Read the configuration again."""
        return self._watcher is not None and await self._watcher.reload()

    async def config(self) -> Mapping[str, Any]:
        """The configuration in force."""
        return self._config.model_dump(mode="json")

    async def policy(self) -> Mapping[str, Any]:
        """How often a policy was put in force, which one, and why the file's was not."""
        watcher = self._watcher
        return {
            "generation": 1 if watcher is None else watcher.generation,
            "digests": [self._policy_digest],
            "refusal": "" if watcher is None else watcher.refusal,
        }

    async def check_policy(self, text: str) -> list[str]:
        """What a reload would refuse of a text."""
        return await asyncio.to_thread(self._problems, text)

    def _problems(self, text: str) -> list[str]:
        if self._file is None:
            return ["started without a configuration file"]
        try:
            check(self._file.parse(text))
        except ConfigError as error:
            return str(error).splitlines()
        return []

    async def history(self) -> Mapping[str, Any]:
        """What is remembered, and who raised alarms."""
        if self._history is None:
            return {"remembered": 0, "shared": None, "principals": []}
        return self._history.standings()

    async def forget(self, principal: str | None, model: str | None) -> int:
        """Lift quarantines."""
        return 0 if self._history is None else await self._history.forget(principal, model)

    async def records(
        self,
        model: str | None,
        limit: int,
        before: float | None = None,
        *,
        differing: bool = False,
    ) -> list[dict[str, Any]]:
        """Notable samples, or those a shadow judges otherwise; newest first."""
        found = self._records.recent(model, limit, before, differing=differing)
        # 40 us each: hundreds would hold up the requests.
        return await asyncio.to_thread(lambda: [record.to_json() for record in found])

    def watch(self, model: str | None, everything: bool) -> AsyncIterator[dict[str, Any]]:
        """Records as they come, until the server stops."""
        return told(self._records.watch(model, everything=everything))

    async def scores(self, model: str) -> Mapping[str, Any]:
        """The kept scores of a model, by column."""
        kept = self._records.copy(model)
        if kept is None:
            return empty(model).to_json()
        return await asyncio.to_thread(lambda: kept.snapshot().to_json())

    async def explore(self, model: str, candidate: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """What the policy in force and another one say of the recorded scores."""
        if not self._in_force.needs_device:  # nothing to load torch for
            raise ConfigError("no model has detectors: there is nothing to explore")
        if self._explorer is None or self._explorer.defences is not self._in_force:
            from proxy.explorer.desk import Desk  # loads torch

            self._explorer = Desk(self._in_force)
        return await self._explorer.explore(model, candidate, self._records)

    async def drift(self) -> Mapping[str, Any]:
        """What is held of each model's traffic."""
        return {} if self._drift_watch is None else self._drift_watch.shown()

    async def acknowledge(self, model: str | None) -> list[str]:
        """Do as ever about a drift that is known."""
        return [] if self._drift_watch is None else self._drift_watch.acknowledge(model)

    async def label(self, id: str, label: str) -> bool:
        """Note what a sample was; False where it is not kept."""
        return self._records.label(id, label_of(label))

    async def metrics(self) -> tuple[str, bytes]:
        """One scrape."""
        self._pipeline.flush()
        self._metrics.records(self._records.kept, self._records.watching)
        self._count_handoffs()
        return self._metrics.exposition()


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _connection_age_ms(config: Config) -> int:
    """As gRPC wants it, where the largest number stands for ever."""
    return min(round(1000 * config.max_connection_age_s), _FOR_EVER_MS) or _FOR_EVER_MS


def _upstream(config: Config) -> Upstream:
    """The connection to Triton that the configuration asks for."""
    if config.upstream_shared_memory == "off":
        return Upstream(
            config.upstream, max_message_bytes=config.max_message_bytes, tls=config.upstream_tls
        )
    return HandoffUpstream(
        config.upstream,
        max_message_bytes=config.max_message_bytes,
        memory_bytes=config.upstream_shared_memory_mb * 1024 * 1024,
        hold_s=config.upstream_timeout_s,
        least_bytes=config.upstream_shared_memory_from_kb * 1024,
        tls=config.upstream_tls,
    )


def _tracing(config: Config, metrics: Metrics, worker: str) -> Tracing | None:
    """What records requests, where that is wanted."""
    if config.tracing is None:
        return None
    try:
        from proxy.tracing.tracing import Tracing  # loads OpenTelemetry
    except ImportError as error:
        raise ConfigError(MISSING) from error
    return Tracing(config.tracing, metrics.spans_dropped, worker=worker)
