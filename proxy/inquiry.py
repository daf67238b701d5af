"""`breakwater history`: asks a running sidecar's admin port who raised alarms, and shows it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, NamedTuple
from urllib.parse import urlencode

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from proxy.history.listing import page, printable
from proxy.history.quarantine import Standing

TIMEOUT_S = 10.0  # a supervisor gives each worker 2 s
MOST_ROWS = 50
_FRAME = 8  # lines around the rows
_LEAST_ROWS = 5
_LONGEST_TOLD = 500  # of a refusal, which may be another server's page

_REFUSED = """\
no answer from {where}: {why}
  Is `breakwater serve` running there? It logs `admin on HOST:PORT`; name that with --admin. By
  default only its own machine (or pod) can reach that port: run this command there, or forward
  the port, e.g. kubectl port-forward POD 9090"""
_STRANGER = """\
{where} is not the admin port of a Breakwater of this version: {why}
  It is the one `breakwater serve` logs as `admin on HOST:PORT`, not where clients connect.
  Prometheus likes 9090, too."""
_NO_ENTRY = """\
{where}: {why}
  Give the token with --token-file FILE, or in BREAKWATER_TOKEN: it is the content of the file that
  control.token_file names on that machine"""
_DEFECT = "{where} answered {why}: the log of `breakwater serve` says more"


class Address(NamedTuple):
    """Where an admin port is."""

    host: str
    port: int
    token: str = ""
    """Shown where there is one."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NoAnswerError(Exception):
    """The admin port did not say what was asked; the text says what to do."""


def show(
    admin: Address,
    *,
    model: str | None = None,
    as_json: bool = False,
    every_s: float | None = None,
    console: Console | None = None,
) -> int:
    """Print who raised alarms; returns the exit status.

    Args:
        admin: whom to ask.
        model: show only alarms at this model.
        as_json: print the answer itself instead of a table.
        every_s: go on until interrupted, asking anew after so many seconds. Default: once.
        console: where to print. Default: standard output.
    """
    console = console or Console()
    try:
        if every_s is None:
            _print(_history(admin, model), console, as_json=as_json, indent=2)
        elif console.is_terminal and not as_json:
            _watch(admin, model, every_s, console)
        else:
            while True:
                _print(_history(admin, model), console, as_json=as_json)
                time.sleep(every_s)
    except NoAnswerError as failure:
        return _failed(failure)
    except KeyboardInterrupt:
        if every_s is None:
            raise
    return 0


def clear(
    admin: Address,
    principal: str | None,
    *,
    model: str | None = None,
    as_json: bool = False,
    console: Console | None = None,
) -> int:
    """Lift the quarantine of a principal, or of everybody; returns the exit status.

    Args:
        admin: whom to tell.
        principal: whose; None: everybody's.
        model: at this model only.
        as_json: print the answer itself instead of a sentence.
        console: where to print. Default: standard output.
    """
    console = console or Console()
    scope = {"all": "1"} if principal is None else {"principal": principal}
    if model is not None:
        scope["model"] = model
    try:
        path = f"/history/clear?{urlencode(scope, errors='replace')}"
        answer, _ = _ask(admin, "POST", path, ("cleared",))
    except NoAnswerError as failure:
        return _failed(failure)
    if as_json:
        print(json.dumps(answer))  # noqa: T201
        return 0
    whose = "anybody" if principal is None else f"“{printable(principal)}”"
    where = "" if model is None else f" at the model “{printable(model)}”"
    count = answer["cleared"]
    if count:
        entries = "entry" if count == 1 else "entries"
        text = f"Forgot the alarms of {whose}{where}: {count} {entries}."
    else:
        text = f"Nothing was held against {whose}{where}."
    console.print(Text(text))
    return 0


def _failed(failure: NoAnswerError) -> int:
    print(f"breakwater: {failure}", file=sys.stderr)  # noqa: T201
    return 1


# -- the question ----------------------------------------------------------------------------------


class _History(NamedTuple):
    answer: dict[str, Any]
    standings: Sequence[Standing]
    now: float
    """Seconds since 1970 where the question was answered."""


def _history(admin: Address, model: str | None) -> _History:
    answer, now = _ask(admin, "GET", "/history", ("remembered", "shared", "principals"))
    names = [field.name for field in fields(Standing)]
    try:
        principals = [p for p in answer["principals"] if model in (None, p["model"])]
        standings = [Standing(**{name: each[name] for name in names}) for each in principals]
    except (KeyError, TypeError) as error:
        raise NoAnswerError(_STRANGER.format(where=admin, why=f"no {error}")) from error
    return _History({**answer, "principals": principals}, standings, now)


def _ask(
    admin: Address, method: str, path: str, wanted: tuple[str, ...]
) -> tuple[dict[str, Any], float]:
    """The JSON object answered, which has the wanted keys, and when that was there."""
    connection = HTTPConnection(admin.host, admin.port, timeout=TIMEOUT_S)
    shown = {"Authorization": f"Bearer {admin.token}"} if admin.token else {}
    try:
        connection.request(method, path, headers=shown)
        response = connection.getresponse()
        body = response.read()
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise NoAnswerError(_REFUSED.format(where=admin, why=why)) from error
    except HTTPException as error:
        raise NoAnswerError(_STRANGER.format(where=admin, why="it speaks no HTTP")) from error
    finally:
        connection.close()
    why = f"{response.status} {printable(response.reason)}"
    if response.status == 401:
        raise NoAnswerError(
            _NO_ENTRY.format(where=admin, why=printable(body.decode(errors="replace").strip()))
        )
    if response.status == 403:
        told = body.decode(errors="replace").strip()[:_LONGEST_TOLD]
        raise NoAnswerError(f"{admin}: {printable(told)}")
    if response.status == 500:
        raise NoAnswerError(_DEFECT.format(where=admin, why=why))
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not answer.keys() >= set(wanted):
        raise NoAnswerError(
            _STRANGER.format(where=admin, why=f"it answers {why} to {path.partition('?')[0]}")
        )
    return answer, _time_of(response)


def _time_of(response: HTTPResponse) -> float:
    """The answering machine's clock, so that times are right where this one's is wrong."""
    date = response.getheader("Date")
    return time.time() if date is None else parsedate_to_datetime(date).timestamp()


def _print(
    history: _History, console: Console, *, as_json: bool, indent: int | None = None
) -> None:
    if as_json:
        print(json.dumps(history.answer, indent=indent), flush=True)  # noqa: T201
    else:
        console.print(_page(history, MOST_ROWS))


def _watch(admin: Address, model: str | None, every_s: float, console: Console) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            rows = max(console.height - _FRAME, _LEAST_ROWS)
            live.update(_page(_history(admin, model), rows), refresh=True)
            time.sleep(every_s)


def _page(history: _History, most_rows: int) -> Group:
    return page(history.answer, history.standings, now=history.now, most_rows=most_rows)
