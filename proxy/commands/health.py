"""`breakwater health`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from proxy.commands.options import Commands, add_tls, address, command, seconds

_DESCRIPTION = """\
Ask a running `breakwater serve`, or any server with grpc.health.v1 such as Triton, how it is.

Services of Breakwater: "" and `readiness` (this proxy and Triton are ready for requests),
`liveness` (this process), and each configured model by its name.

Exit status 0: serving; 1: not serving, or the service is not known there; 2: no answer in time."""


def add(commands: Commands) -> None:
    """Add `health` to the command line."""
    parser = command(commands, "health", "probe a sidecar, once", _DESCRIPTION)
    parser.add_argument(
        "--address",
        type=address,
        default="127.0.0.1:8101",
        metavar="HOST:PORT",
        help="where clients connect (default: 127.0.0.1:8101)",
    )
    parser.add_argument(
        "--service",
        default="",
        metavar="NAME",
        help="what to ask about (default: the whole server)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="longest to wait, connecting included (default: 1)",
    )
    add_tls(parser)
    parser.set_defaults(run=_run, log_level="ERROR")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    from proxy.probe import probe

    host, port = options.address
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    given = (options.tls_ca, options.tls_cert, options.tls_key, options.tls_server_name)
    tls = None
    if any(given):
        from proxy.errors import ConfigError
        from proxy.identity.settings import UpstreamTls

        if (options.tls_cert is None) != (options.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together")
        fields = ("ca_file", "cert_file", "key_file", "server_name")
        tls = UpstreamTls(**dict(zip(fields, given, strict=True)))
    health, text = probe(where, options.service, timeout_s=options.timeout, tls=tls)
    print(text)  # noqa: T201
    return int(health)
