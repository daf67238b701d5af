"""A worker that only counts: what `proxy.supervisor` starts in its tests.

It tells what happens to it over a Unix socket, one line an event, so that no test has to wait
blindly.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from proxy.admin import Admin, Status
from proxy.history.quarantine import Quarantine
from proxy.metrics import Metrics
from proxy.supervisor import watch_parent, worker_socket


class Target:
    """Two requests in flight, always, and an alarm raised by `eve`."""

    def __init__(self, metrics: Metrics, tell: Any) -> None:
        self._metrics = metrics
        self._tell = tell
        self._quarantine = Quarantine()
        self._quarantine.alarm("cnn", "eve", half_life_s=600.0, chain=5)

    async def status(self) -> Status:
        return Status(ready=True, draining=False, in_flight=2)

    async def drain(self, mode: str = "exit") -> None:
        raise AssertionError("the supervisor drains by signal")

    async def reload(self) -> bool:
        self._tell("reload")
        return True

    async def config(self) -> Mapping[str, Any]:
        return {"of": "a worker"}

    async def metrics(self) -> tuple[str, bytes]:
        return self._metrics.exposition()

    async def history(self) -> Mapping[str, Any]:
        standings = [asdict(standing) for standing in self._quarantine.standings()]
        return {"remembered": 3, "shared": {"state": "up"}, "principals": standings}

    async def forget(self, principal: str | None, model: str | None) -> int:
        self._tell("forget")
        return self._quarantine.clear(principal, model)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say who we are; die when told to."""
    word = await reader.readline()
    if word == b"die\n":
        os._exit(3)
    writer.write(f"{os.getpid()}\n".encode())
    await writer.drain()
    writer.close()


async def main(options: argparse.Namespace) -> int:
    events = socket.socket(socket.AF_UNIX)
    events.connect(options.events)

    def tell(event: str) -> None:
        events.sendall(f"{event} {options.worker_index} {os.getpid()}\n".encode())

    if options.refuse:
        return 2
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if options.hang:
            loop.add_signal_handler(number, tell, "ignored")
        else:
            loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, tell, "hangup")
    watch_parent(stopped.set)
    metrics = Metrics(CollectorRegistry())
    metrics.configure({"cnn": []})
    metrics.in_flight.inc(2)
    metrics.model("cnn").request("none", "ok")
    host, _, port = options.listen.rpartition(":")
    server = await asyncio.start_server(answer, host, int(port), reuse_port=True)
    admin = Admin(Target(metrics, tell))
    await admin.start(worker_socket(Path(options.worker_dir), options.worker_index))
    tell("up")
    await stopped.wait()
    server.close()
    await admin.stop()
    tell("drained")
    return int(options.exit_code)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events")
    parser.add_argument("--refuse", action="store_true")
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--exit-code", type=int, default=0)
    parser.add_argument("--listen")
    parser.add_argument("--worker-dir")
    parser.add_argument("--worker-history", type=int)
    parser.add_argument("--worker-index", type=int)
    raise SystemExit(asyncio.run(main(parser.parse_args())))
