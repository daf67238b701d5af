"""How the subcommands that speak to a control port are told where it is."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.commands.options import address
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.control.client import Client

ABOUT = """

Asks a running `breakwater serve` on its control port, which the section `control` of its
configuration turns on. The token is read from --token-file, or else from BREAKWATER_TOKEN.

Exit status 0: done; 1: not done, or no answer; 2: the command was not understood."""


def add_control(parser: argparse.ArgumentParser) -> None:
    """`--control` and what it takes to get in."""
    group = parser.add_argument_group("control port")
    group.add_argument(
        "--control",
        type=address,
        default="127.0.0.1:9091",
        metavar="HOST:PORT",
        help="control port of the sidecar (default: 127.0.0.1:9091)",
    )
    group.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token")
    group.add_argument("--ca", type=Path, metavar="FILE", help="CA of the port's certificate (PEM)")
    group.add_argument("--cert", type=Path, metavar="FILE", help="our own certificate (PEM)")
    group.add_argument("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    group.add_argument(
        "--server-name", default="", metavar="NAME", help="the name in the port's certificate"
    )


def with_client(options: argparse.Namespace, work: Callable[[Client], int]) -> int:
    """Connect as the options say and work; the exit status.

    Raises:
        ConfigError: the token or a certificate cannot be read.
    """
    from proxy.control.client import CallError, Client, Place

    host, port = options.control
    place = Place(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        token=token_of(options.token_file),
        ca_file=options.ca,
        cert_file=options.cert,
        key_file=options.key,
        server_name=options.server_name,
    )
    try:
        with Client(place) as client:
            return work(client)
    except CallError as failure:
        print(f"breakwater: {failure}", file=sys.stderr)  # noqa: T201
        return 1


def token_of(path: Path | None) -> str:
    """The token in a file, or in BREAKWATER_TOKEN; empty where there is none.

    Raises:
        ConfigError: the file cannot be read, or holds no token.
    """
    if path is None:
        token, where = os.environ.get("BREAKWATER_TOKEN", ""), "BREAKWATER_TOKEN"
    else:
        try:
            token, where = path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {path}: {error}") from error
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{where} holds no token: it is one word of printable ASCII")
    return token
