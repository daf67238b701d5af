"""Options that several subcommands have, and how their values are read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.config import Config

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a subcommand adds its parser."""


def command(
    commands: Commands,
    name: str,
    help_text: str,
    description: str,
) -> argparse.ArgumentParser:
    """A parser for one subcommand, with its description kept as it is written."""
    return commands.add_parser(
        name,
        help=help_text,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_addresses(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--upstream`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (YAML)")
    parser.add_argument("--upstream", metavar="HOST:PORT", help="Triton's gRPC address")


def named_file(text: str) -> tuple[str, Path]:
    """Read NAME=FILE."""
    name, _, file = text.partition("=")
    if not name.replace("_", "").isalnum() or not file:
        raise argparse.ArgumentTypeError("must be NAME=FILE.npz, the name of letters and digits")
    return name, Path(file)


def add_lineage(parser: argparse.ArgumentParser) -> None:
    """`--source` and `--licence` of the data file."""
    parser.add_argument(
        "--source",
        type=statement,
        default="",
        metavar="TEXT",
        help="where the data is from, kept with the result (default: the file's name)",
    )
    parser.add_argument(
        "--licence",
        type=statement,
        default="",
        metavar="TEXT",
        help="under which terms the data may be used, kept with the result",
    )


def statement(text: str) -> str:
    """Read a line that a person says about something."""
    if not text.isprintable() or len(text) > 500:
        raise argparse.ArgumentTypeError("must be one line of at most 500 printable characters")
    return text.strip()


def positive(text: str) -> int:
    """Read a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def share(text: str) -> float:
    """Read a share of a whole, more than 0 and at most 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 1")
    return number


def seconds(text: str) -> float:
    """Read a time of less than a day, in seconds."""
    seconds = float(text)
    if not 0 < seconds < 86400:
        raise argparse.ArgumentTypeError("must be more than 0 and less than a day")
    return seconds


def address(text: str) -> tuple[str, int]:
    """Read HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT with a port up to 65535")
    return host.strip("[]"), int(port)


def add_tls(parser: argparse.ArgumentParser) -> None:
    """`--tls-ca` and what goes with it; any of them means TLS."""
    group = parser.add_argument_group("TLS")
    group.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="CA of the port's certificate (PEM)"
    )
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="our own certificate (PEM)")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    group.add_argument(
        "--tls-server-name", default="", metavar="NAME", help="the name in the port's certificate"
    )


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Settings of the command line that win over the file."""
    names = ("listen", "upstream", "admin", "metrics")
    return {n: v for n in names if (v := getattr(options, n, None)) is not None}


def config_of(options: argparse.Namespace) -> Config:
    """The configuration the options name, with what they override.

    Raises:
        ConfigError: it cannot be used.
    """
    from pydantic import ValidationError

    from proxy import configfile
    from proxy.config import Config

    config = Config() if options.config is None else configfile.load(options.config)
    changed = overrides(options)
    if changed:
        try:
            Config.model_validate(changed)  # the same check as for the file
        except ValidationError as error:
            names = ", ".join(f"--{e['loc'][0]} {e['input']}" for e in error.errors())
            raise ConfigError(f"{names}: not HOST:PORT with a port up to 65535") from error
        config = config.model_copy(update=changed)
    return config
