"""The command line's side of the control API: one connection, errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from proxy.errors import ConfigError
from proxy.history.listing import printable
from proxy.pb.breakwater.v1 import control_pb2 as pb

TIMEOUT_S = 15.0  # a supervisor gives each worker 2 s
CHANGE_TIMEOUT_S = 180.0
"""A change loads every model's networks, twice: once to judge it and once to put it in force."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024

_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Control"]

_REFUSED = """\
no answer from {where}: {why}
  Is `breakwater serve` running there, with a `control:` section in its configuration? That turns
  the control port on, e.g. `control: {{token_file: control.token}}`; it is logged as `control on
  HOST:PORT`. Name that with --control, and --ca where it has a certificate (--cert and --key where
  it wants one). By default only its own machine (or pod) can reach it: run this command there, or
  forward the port, e.g. kubectl port-forward POD 9091"""
_STRANGER = """\
{where} is not the control port of a Breakwater of this version: {why}
  It is the one `breakwater serve` logs as `control on HOST:PORT`, neither where clients connect nor
  the admin port"""
_NO_ENTRY = """\
{where}: {why}
  Give the token with --token-file FILE, or in BREAKWATER_TOKEN: it is the content of the file that
  control.token_file names on that machine"""
_LATE = """\
{where} took longer than {limit_s:g} s: {why}
  What was asked may still be done; look before you ask again"""


class CallError(Exception):
    """A call was not answered as wanted; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """A control port, and what it wants to see."""

    address: str
    token: str = ""
    ca_file: Path | None = None
    """Certificates that the server's is checked against; with any of the three it is TLS."""
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""
    """The name in the server's certificate, where that is not the address's."""


class Client:
    """A connection to a control port.

    Args:
        place: where it is.

    Raises:
        ConfigError: a certificate cannot be read.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._metadata = (("authorization", f"Bearer {place.token}"),) if place.token else ()
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES)
        ]
        if place.server_name:
            options.append(("grpc.ssl_target_name_override", place.server_name))
        credentials = _credentials(place)
        if credentials is None:
            self._channel = grpc.insecure_channel(place.address, options=options)
        else:
            self._channel = grpc.secure_channel(place.address, credentials, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._channel.close()

    def call(self, name: str, request: Message, *, timeout_s: float = TIMEOUT_S) -> Any:
        """The answer to a call.

        Raises:
            CallError: there is none, or it is an error.
        """
        method = _DESCRIPTOR.methods_by_name[name]
        ask = self._channel.unary_unary(_path(name), *_serializers(method))
        try:
            return ask(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise CallError(self._told(error, timeout_s)) from error

    def stream(self, name: str, request: Message) -> Iterator[Any]:
        """The answers to a call until the server ends it, in a CallError.

        Raises:
            CallError: see above.
        """
        method = _DESCRIPTOR.methods_by_name[name]
        ask = self._channel.unary_stream(_path(name), *_serializers(method))
        answers = ask(request, metadata=self._metadata)
        try:
            yield from answers
        except grpc.RpcError as error:
            raise CallError(self._told(error, 0.0)) from error
        finally:
            answers.cancel()
        raise CallError(f"{self._place.address} has stopped")

    def _told(self, error: Any, limit_s: float) -> str:
        where, code = self._place.address, error.code()
        why = _printable(error.details() or code.name)
        if code is grpc.StatusCode.UNAVAILABLE and "worker" not in why:
            return _REFUSED.format(where=where, why=why)
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return _STRANGER.format(where=where, why=why)
        if code is grpc.StatusCode.UNAUTHENTICATED:
            return _NO_ENTRY.format(where=where, why=why)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return _LATE.format(where=where, why=why, limit_s=limit_s)
        return f"{where}: {why}"


def _path(name: str) -> str:
    return f"/{_DESCRIPTOR.full_name}/{name}"


def _serializers(method: Any) -> tuple[Any, Any]:
    serialize = methodcaller("SerializeToString")
    return serialize, getattr(pb, method.output_type.name).FromString


def _credentials(place: Place) -> grpc.ChannelCredentials | None:
    files = (place.ca_file, place.key_file, place.cert_file)
    if not any(files):
        return None
    if (place.cert_file is None) != (place.key_file is None):
        raise ConfigError("--cert and --key go together")
    try:
        return grpc.ssl_channel_credentials(*(f and f.read_bytes() for f in files))
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


def _printable(text: str) -> str:
    """The text line by line, with what a terminal would act on escaped."""
    return "\n".join(map(printable, text.splitlines()))
