"""`breakwater drain`. Loads nothing heavy: a preStop hook starts it in every pod that ends."""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from proxy.commands.control_port import token_of
from proxy.commands.options import Commands, add_tls, address, command, seconds
from proxy.errors import ConfigError

_DESCRIPTION = """\
Send the clients of a running `breakwater serve` away without losing a request, by its admin port.

Health says NOT_SERVING at once; requests are taken for drain_delay_seconds more, while load
balancers notice; then connections end at their age (max_connection_age_s), clients open the next
one elsewhere, and what is in flight is finished. Without --wait the process then exits.

--wait is for a preStop hook: it returns when clients have gone and nothing is in flight, and the
process stays, idle, until its SIGTERM. Kubernetes may start a sidecar again that ends before that,
and what is still in the pod can use it. Give the pod terminationGracePeriodSeconds of more than
drain_delay_seconds + drain_seconds, and let the model server's own preStop sleep that long.

Where control.token_file is configured it needs the token, from --token-file or BREAKWATER_TOKEN.

Exit status 0: done; 1: no answer, or not drained in time; 2: the command was not understood."""

_ANSWER_S = 10.0
"""A supervisor gives each worker 2 s."""
_POLL_S = 0.2

_SILENT = """\
no answer from {where}: {why}
  Is `breakwater serve` running there? It logs `admin on HOST:PORT`; name that with --admin. By
  default only its own machine (or pod) can reach that port."""
_STRANGER = """\
{where} is not the admin port of a Breakwater of this version: it answers {status} to {path}
  It is the one `breakwater serve` logs as `admin on HOST:PORT`, not where clients connect."""
_NO_ENTRY = """\
{where} wants the token: give it with --token-file FILE or in BREAKWATER_TOKEN; it is the content
  of the file that control.token_file names there"""
_LATE = """\
not drained after {limit:g} s: {in_flight} in flight. It goes on; drain_delay_seconds +
  drain_seconds of its configuration say how long it may take"""


class _FailureError(Exception):
    """It did not do what was asked; the text says what to do."""


class _Gone(_FailureError):
    """Nothing listens there."""


def add(commands: Commands) -> None:
    """Add `drain` to the command line."""
    parser = command(commands, "drain", "send its clients away, for a preStop hook", _DESCRIPTION)
    parser.add_argument(
        "--admin",
        type=address,
        default="127.0.0.1:9090",
        metavar="HOST:PORT",
        help="admin port of the sidecar (default: 127.0.0.1:9090)",
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token")
    parser.add_argument(
        "--wait", action="store_true", help="until it is drained; it then stays until SIGTERM"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=120.0,
        metavar="SECONDS",
        help="longest to wait (default: 120)",
    )
    add_tls(parser)
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    host, port = options.admin
    admin = _Admin(host, port, _context(options), options.tls_server_name)
    token = token_of(options.token_file)
    try:
        _ask(admin, "POST", "/drain?stay=1" if options.wait else "/drain", token)
        if options.wait:
            _wait(admin, options.timeout)
    except _FailureError as failure:
        print(f"breakwater: {failure}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


@dataclass(frozen=True)
class _Admin:
    host: str
    port: int
    tls: ssl.SSLContext | None
    name: str
    """The name in its certificate; empty: the host."""

    def connect(self) -> HTTPConnection:
        if self.tls is None:
            return HTTPConnection(self.host, self.port, timeout=_ANSWER_S)
        connection = HTTPSConnection(self.host, self.port, timeout=_ANSWER_S, context=self.tls)
        if self.name:
            plain = socket.create_connection((self.host, self.port), timeout=_ANSWER_S)
            connection.sock = self.tls.wrap_socket(plain, server_hostname=self.name)
        return connection


def _context(options: argparse.Namespace) -> ssl.SSLContext | None:
    files = (options.tls_ca, options.tls_cert, options.tls_key)
    if not any((*files, options.tls_server_name)):
        return None
    if (options.tls_cert is None) != (options.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key go together")
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
        if options.tls_cert is not None:
            context.load_cert_chain(*files[1:], password=lambda: b"")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--tls-ca, --tls-cert, --tls-key: {error}") from error
    return context


def _wait(admin: _Admin, limit_s: float) -> None:
    """Return when it is drained, or gone."""
    end_s = time.monotonic() + limit_s
    while True:
        try:
            status = _ask(admin, "GET", "/ready", "")
        except _Gone:
            return
        if status.get("drained") is True:
            return
        if time.monotonic() >= end_s:
            raise _FailureError(_LATE.format(limit=limit_s, in_flight=int(status["in_flight"])))
        time.sleep(_POLL_S)


def _ask(admin: _Admin, method: str, path: str, token: str) -> Mapping[str, Any]:
    """The status answered; raises _FailureError."""
    host, port = admin.host, admin.port
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection = HTTPConnection(host, port)
    try:
        connection = admin.connect()
        connection.request(
            method, path, headers={"Authorization": f"Bearer {token}"} if token else {}
        )
        answer = connection.getresponse()
        code, body = answer.status, answer.read(65536)
    except (ConnectionRefusedError, ConnectionResetError) as error:
        raise _Gone(_SILENT.format(where=where, why=error.strerror)) from error
    except OSError as error:
        why = getattr(error, "verify_message", None) or error.strerror or type(error).__name__
        raise _FailureError(_SILENT.format(where=where, why=why)) from error
    except HTTPException as error:
        told = _STRANGER.format(where=where, status="no HTTP", path=path)
        raise _FailureError(told) from error
    finally:
        connection.close()
    if code in (401, 403):
        raise _FailureError(_NO_ENTRY.format(where=where))
    try:
        status = json.loads(body)
    except ValueError:
        status = None
    if not isinstance(status, dict) or not isinstance(status.get("in_flight"), int):
        raise _FailureError(_STRANGER.format(where=where, status=code, path=path))
    return status
