"""The dashboard's form: what Grafana wants, what a reader needs, and metrics that there are."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from loadtests import dashboard_queries as queries
from loadtests.dashboard_queries import Json, Span
from proxy import model_metrics
from proxy.drift.state import WINDOWS
from proxy.metrics import Metrics, SupervisorMetrics

BOARD = queries.dashboard()
PANELS = list(queries.panels(BOARD))
ROWS = (
    *("Overview", "Traffic", "Verdicts", "p-value distributions", "Latency by stage"),
    *("Cost of the defence", "History of queries", "Drift of the population"),
    *("Shadow and records", "Process", "Access and captures"),
)
CORE_PANELS = {"row", "text", "stat", "timeseries", "heatmap", "state-timeline", "table"}
UNKNOWN_TO_THE_SCHEMA = {"definition", "titleFormat", "textFormat", "useValueForTime"}
"""What Grafana itself writes for variables and annotations of Prometheus, in fields that its
schema leaves to the data source."""

CLOSED = {
    "stage": model_metrics.STAGES,
    "verdict": model_metrics.VERDICTS,
    "action": model_metrics.ACTIONS,
    "outcome": ("ok",),
    "alertstate": ("firing",),
    "le": [str(bound) for bound in model_metrics.P_VALUE_BUCKETS],
    "window": WINDOWS,
}
"""Label values that a query may name."""

SELECTOR = re.compile(r"(breakwater_\w+|ALERTS)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|!=|!~|=)"([^"]*)"')
BUILTIN = {"__interval", "__rate_interval", "__range"}
NAMED = re.compile(r"\$\{?(\w+)")


def expressions() -> dict[str, str]:
    """Every query by where it is."""
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel.get("targets", ())
    }
    found |= {f"${each['name']}": each["query"]["query"] for each in queries.variables(BOARD)}
    return found | {each["name"]: each["expr"] for each in queries.annotations(BOARD)}


EXPRESSIONS = expressions()


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The type of every metric of a process with a shared history, and of a supervisor."""
    metrics = Metrics()
    metrics.history_store(True)
    folder = tmp_path_factory.mktemp("multiprocess")
    told = (metrics.exposition()[1] + SupervisorMetrics(folder).exposition()[1]).decode()
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", told, re.MULTILINE))


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Where a document is not what came back of it, absent and empty being the same."""
    if isinstance(before, dict):
        return [
            place
            for key, value in before.items()
            if key not in UNKNOWN_TO_THE_SCHEMA and value not in (None, "", [], {})
            for place in lost(value, after.get(key), f"{path}/{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [place for i, both in pairs for place in lost(*both, f"{path}/{i}")]
    return [] if before == after else [f"{path}: {before!r}, not {after!r}"]


def test_grafanas_own_schema_knows_every_field() -> None:
    register_default_plugins()
    read = Dashboard.from_json(BOARD)
    assert lost(BOARD, json.loads(JSONEncoder().encode(read))) == []


def test_a_field_that_grafana_does_not_know_is_found() -> None:
    register_default_plugins()
    panel: Json = {"type": "stat", "id": 1, "options": {"colourMode": "value"}}
    read = Dashboard.from_json({"panels": [panel]})
    after = json.loads(JSONEncoder().encode(read))
    assert lost({"panels": [panel]}, after) == ["/panels/0/options/colourMode: 'value', not None"]


def test_it_can_be_imported_anywhere() -> None:
    assert (BOARD["uid"], BOARD["title"], BOARD["schemaVersion"]) == (
        "breakwater",
        "Breakwater",
        39,
    )
    assert "id" not in BOARD
    text = queries.DASHBOARD.read_text()
    assert text == json.dumps(BOARD, indent=2, ensure_ascii=False) + "\n"
    sources = set(re.findall(r'"uid": "([^"]*)"', text))
    assert sources == {"breakwater", "${datasource}", "-- Grafana --"}
    assert {panel["type"] for panel in BOARD["panels"]} <= CORE_PANELS


def test_kubectl_can_apply_it() -> None:
    # It notes the whole ConfigMap in an annotation, and Kubernetes takes 256 KiB of those.
    assert len(json.dumps({"data": queries.DASHBOARD.read_text()})) < 250_000


def test_its_guide_is_the_alerts_guide() -> None:
    (guide,) = (link["url"] for link in BOARD["links"] if link["title"] == "Guide")
    rules = (queries.DASHBOARD.parents[1] / "prometheus/rules/breakwater.rules.yaml").read_text()
    told = re.findall(r"runbook_url: (\S+)#", rules)
    assert set(told) == {guide}


def test_its_rows_are_these() -> None:
    assert tuple(p["title"] for p in BOARD["panels"] if p["type"] == "row") == ROWS


def test_panels_have_ids_of_their_own_and_a_place() -> None:
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for place in places:
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    lines = sorted({y for _, y in taken})
    assert all(later == earlier + 1 for earlier, later in pairwise(lines))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_a_panel_says_how_to_read_it(panel: Json) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len(panel["description"]) > 40
    if panel["type"] == "text":
        return
    assert "Bad: " in panel["description"]
    options, defaults = panel["options"], panel["fieldConfig"]["defaults"]
    assert defaults.get("unit") or options["yAxis"]["unit"]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["legendFormat"] or panel["type"] == "table"
        assert target["instant"] is not target["range"]


def test_titles_say_which_query_is_meant() -> None:
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)


def test_every_variable_is_used_and_every_one_used_is_there() -> None:
    names = {each["name"] for each in BOARD["templating"]["list"]}
    text = json.dumps([BOARD["panels"], BOARD["annotations"], BOARD["templating"]])
    assert set(NAMED.findall(text)) - BUILTIN - {"__all"} == names
    assert names == {"datasource", "namespace", "pod", "model", "detector"}
    for each in queries.variables(BOARD):
        assert each["multi"]
        assert each["includeAll"]
        assert each["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_query_names_what_there_is(where: str, exposed: dict[str, str]) -> None:
    expression = EXPRESSIONS[where]
    selectors = SELECTOR.findall(expression)
    assert selectors or where == "$namespace"
    for metric, matchers in selectors:
        if metric == "ALERTS":
            continue
        family = re.sub(r"_(bucket|count|sum)$", "", metric)
        kind = exposed.get(family) or exposed[metric]
        assert (kind == "histogram") == (family != metric), "histograms have buckets, others not"
        rated = re.search(rf"(rate|increase)\({metric}\b", expression)
        if kind != "gauge" and where[0] != "$":
            assert rated, f"{metric} only grows"
        assert kind != "gauge" or not rated
        for label, _, value in MATCHER.findall(matchers):
            assert value == f"${label}" or value in CLOSED[label]


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_query_keeps_to_what_is_chosen(where: str) -> None:
    for metric, matchers in SELECTOR.findall(EXPRESSIONS[where]):
        asked = {value for _, operator, value in MATCHER.findall(matchers) if operator == "=~"}
        assert "$namespace" in asked or where[0] == "$"
        if re.search(r"by \([^)]*model", EXPRESSIONS[where]):
            assert "$model" in asked, metric


@pytest.mark.parametrize("where", [k for k, v in EXPRESSIONS.items() if "histogram_quantile" in v])
def test_a_quantile_is_of_rates_by_bucket(where: str) -> None:
    form = r"histogram_quantile\(0\.\d+, sum by \(le[^)]*\) \(rate\(breakwater_\w+_bucket\{"
    assert len(re.findall(form, EXPRESSIONS[where])) == EXPRESSIONS[where].count("_quantile")


def test_every_metric_is_shown(exposed: dict[str, str]) -> None:
    text = "\n".join(EXPRESSIONS.values())
    assert [name for name in exposed if name not in text] == []


def test_heat_maps_show_every_stage() -> None:
    shown = {p["title"].removeprefix("Stage: ") for p in PANELS if p["title"][:7] == "Stage: "}
    assert shown == set(model_metrics.STAGES)


def test_the_text_about_p_values_knows_the_bands() -> None:
    (text,) = (panel["options"]["content"] for panel in PANELS if panel["type"] == "text")
    bounds = (0.0, *model_metrics.P_VALUE_BUCKETS)
    shares = [f"{100 * (high - low):.2g}" for low, high in pairwise(bounds)]
    *first, last = reversed(shares)
    assert f"expect {', '.join(first)} and {last} %" in text


def test_variables_are_put_in_as_grafana_does() -> None:
    variable: Json = {"name": "model", "options": ["a", "b.c"]}
    assert queries.chosen(variable, ["cnn-1"]) == "cnn-1"
    assert queries.chosen(variable, None) == r"(a|b\\.c)"
    assert queries.chosen({**variable, "allValue": ".*"}, None) == ".*"
    span = Span(0, 3600, step_s=15, scrape_s=15)
    told = queries.substituted(
        'x{a=~"$a"}[$__rate_interval] + y[${__range}]', {"a": "b", **span.builtin}
    )
    assert told == 'x{a=~"b"}[60000ms] + y[3600s]'
    with pytest.raises(KeyError):
        queries.substituted("$unknown", {})
