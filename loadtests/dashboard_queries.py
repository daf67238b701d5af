"""The queries of deploy/grafana/breakwater.json, as Grafana would ask them of a Prometheus."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "breakwater.json"

Json = dict[str, Any]

_LABEL_VALUES = re.compile(r"label_values\((?:(.+), *)?(\w+)\)", re.DOTALL)
_SPECIAL = re.compile(r"['^$*{}\[\]+?.()|]")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")


def dashboard() -> Json:
    """The dashboard as it is imported."""
    loaded: Json = json.loads(DASHBOARD.read_text())
    return loaded


def panels(board: Json) -> Iterator[Json]:
    """All panels that show something, those of collapsed rows among them."""
    for panel in board["panels"]:
        yield from (panel["panels"] if panel["type"] == "row" else [panel])


def variables(board: Json) -> list[Json]:
    """The variables that are asked of the data source, in their order."""
    return [each for each in board["templating"]["list"] if each["type"] == "query"]


def annotations(board: Json) -> list[Json]:
    """The annotations that are asked of the data source."""
    return [each for each in board["annotations"]["list"] if "expr" in each]


@dataclass(frozen=True)
class Span:
    """A range of time, and how finely it is looked at; seconds, Unix time."""

    start_s: float
    end_s: float
    step_s: int
    scrape_s: float

    @property
    def builtin(self) -> dict[str, str]:
        """Grafana's own variables; `$__rate_interval` is its documentation's formula."""
        rate_s = max(self.step_s + self.scrape_s, 4 * self.scrape_s)
        length_s = max(1, round(self.end_s - self.start_s))
        return {
            "__interval": f"{self.step_s}s",
            "__rate_interval": f"{round(rate_s * 1000)}ms",
            "__range": f"{length_s}s",
        }


def substituted(text: str, values: Mapping[str, str]) -> str:
    """The text with `$name`, `${name}` and `${name:format}` replaced.

    Raises:
        KeyError: a name has no value.
    """
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], text)


def chosen(variable: Json, values: Sequence[str] | None) -> str:
    """What Grafana puts for a variable of several values in a query: a regular expression.

    Args:
        variable: its definition.
        values: those chosen; None for All, with the `options` it then stands for filled in.
    """
    if values is None and variable.get("allValue"):
        return str(variable["allValue"])
    taken = variable["options"] if values is None else values
    # Two backslashes: the expression goes into a string of PromQL.
    escaped = [_SPECIAL.sub(r"\\\\\g<0>", each.replace("\\", 4 * "\\")) for each in taken]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


class Prometheus:
    """Asks a Prometheus over HTTP.

    Args:
        url: where it is, e.g. `http://127.0.0.1:9090`.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **parameters: str | float) -> Any:
        """The data of an answer.

        Raises:
            ValueError: it refuses the query; the text says why.
        """
        data = urllib.parse.urlencode(parameters).encode()
        # The values of a label cannot be asked for with POST.
        post = None if path.startswith("label/") else data
        where = f"{self._url}/api/v1/{path}" + ("" if post else f"?{data.decode()}")
        try:
            with urllib.request.urlopen(where, post, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise ValueError(f"{parameters}: {refused.read().decode()}") from refused

    def series(self, target: Json, values: Mapping[str, str], span: Span) -> list[Json]:
        """What a panel's query finds: series with `metric` and `values`, [time, text] each."""
        expression = substituted(target["expr"], {**values, **span.builtin})
        if target.get("instant"):
            found = self.ask("query", query=expression, time=span.end_s)["result"]
            return [{**each, "values": [each["value"]]} for each in found]
        return self.range(expression, span)

    def range(self, expression: str, span: Span) -> list[Json]:
        """The series of an expression over a span."""
        times = {"start": span.start_s, "end": span.end_s, "step": span.step_s}
        found: list[Json] = self.ask("query_range", query=expression, **times)["result"]
        return found

    def options(self, variable: Json, values: Mapping[str, str], span: Span) -> list[str]:
        """The values to choose from of a variable asked with `label_values`.

        Raises:
            ValueError: it is asked in another way.
        """
        found = _LABEL_VALUES.fullmatch(variable["query"]["query"])
        if found is None:
            raise ValueError(f"not label_values(selector, label): {variable['query']['query']}")
        selector = substituted(found[1], values) if found[1] else '{__name__!=""}'
        times = {"start": span.start_s, "end": span.end_s}
        told: list[str] = self.ask(f"label/{found[2]}/values", **{"match[]": selector, **times})
        return told

    def choices(self, board: Json, span: Span) -> dict[str, list[str]]:
        """What each variable offers, with All chosen of those before it."""
        offered: dict[str, list[str]] = {}
        for variable in variables(board):
            values = everything(board, offered)
            offered[variable["name"]] = self.options(variable, values, span)
        return offered


def everything(board: Json, offered: Mapping[str, list[str]]) -> dict[str, str]:
    """The variables with All chosen, as far as it is known what they offer."""
    return {
        each["name"]: chosen({**each, "options": offered[each["name"]]}, None)
        for each in variables(board)
        if each["name"] in offered
    }
