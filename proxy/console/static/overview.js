// The overview: traffic, verdicts, latency and the health of the parts, from successive scrapes.

import { COLOURS, DASHES, NO_CHARTS, draw, plain } from "./charts.js";
import { ask, pause } from "./client.js";
import { by, el, fill, say, state, table, tile } from "./elements.js";
import { count, hours, milliseconds, number, percent } from "./figures.js";
import { quantile, rate, since, total } from "./histogram.js";

const EVERY_MS = 2000;
const KEPT = 90; // three minutes
const WINDOW_S = 60;
const STAGES = ["read", "queue", "score", "history", "views", "purify", "upstream", "total"];
const VERDICTS = ["pass", "suspicious", "failed"];

const scrapes = [];

export async function startOverview(connection) {
  for (;;) {
    if (!document.hidden) {
      try {
        scrapes.push(await ask("/api/overview"));
        if (scrapes.length > KEPT) scrapes.shift();
        connection("overview", "");
        show(scrapes.at(-1));
      } catch (error) {
        connection("overview", error.message);
      }
    }
    await pause(EVERY_MS);
  }
}

function show(now) {
  if (by("overview-page").hidden) return;
  const models = Object.entries(now.models);
  const rates = ratesNow(models);
  showTiles(now, rates);
  showTraffic(models, rates);
  showVerdicts(models);
  showLatency(now, models);
  fill(by("health"), health(now, models));
}

/** Requests per second by model over the last scrapes, about ten seconds. */
function ratesNow(models) {
  const now = scrapes.at(-1);
  const before = scrapes.at(-6) ?? scrapes[0];
  return new Map(models.map(([name, model]) => [name,
    rate(model.requests, before.models[name]?.requests ?? 0, now.time_s - before.time_s)]));
}

function showTiles(now, rates) {
  const sum = (field) =>
    Object.values(now.models).reduce((all, model) => all + (model[field] ?? 0), 0);
  const known = [...rates.values()].filter((each) => each !== null);
  const verdicts = Object.values(now.models).map((model) => model.verdicts);
  const suspicious = verdicts.reduce((all, each) => all + (each.suspicious ?? 0), 0);
  const samples = verdicts.reduce((all, each) => all + sumOf(each), 0);
  fill(
    by("tiles"),
    tile("Requests per second", known.length ? number(known.reduce((a, b) => a + b, 0)) : "…",
      "over the last seconds"),
    tile("Requests", count(sum("requests")), `${count(sum("errors"))} with an error`),
    tile("Suspicious", samples ? percent(suspicious / samples) : "–",
      `${count(suspicious)} of ${count(samples)} samples`),
    tile("In flight", count(now.status.in_flight), now.status.draining ? "draining" : ""),
    tile("Passed without verdict", count(sum("fail_open")), `${count(sum("failures"))} failures`),
  );
}

async function chart(id, label, traces, options) {
  if (await draw(by(id), label, traces, options)) return;
  by("charts-note").hidden = false;
  say(by("charts-note"), NO_CHARTS);
}

function showTraffic(models, rates) {
  table(by("traffic-table"), "Since the start, by model",
    ["Model", ">Now", ">Requests", ">Errors", "Actions"],
    models.map(([name, model]) => [
      name, rates.get(name) === null ? "…" : `${number(rates.get(name))}/s`,
      count(model.requests), count(model.errors), shares(model.actions),
    ]));
  const traces = models.map(([name], at) => ({
    name: plain(name),
    mode: "lines",
    line: { color: COLOURS[at % COLOURS.length], dash: DASHES[at % DASHES.length] },
    x: scrapes.slice(1).map((scrape) => new Date(1000 * scrape.time_s)),
    y: scrapes.slice(1).map((scrape, i) => rate(scrape.models[name]?.requests ?? 0,
      scrapes[i].models[name]?.requests ?? 0, scrape.time_s - scrapes[i].time_s)),
  }));
  chart("traffic-chart", "Requests per second by model over the last three minutes", traces,
    { yaxis: { rangemode: "tozero" }, showlegend: models.length > 1 });
}

function shares(counts) {
  const seen = Object.entries(counts).filter(([, value]) => value > 0);
  return seen.map(([name, value]) => `${name} ${count(value)}`).join(", ") || "–";
}

function showVerdicts(models) {
  const scored = models.filter(([, model]) => sumOf(model.verdicts) > 0);
  table(by("verdict-table"),
    "Samples since the start; thresholds in force by the evidence there is",
    ["Model", ">Passed", ">Suspicious", ">Failed", "Threshold"],
    models.map(([name, model]) => [name, ...VERDICTS.map((verdict) => {
      const value = model.verdicts[verdict] ?? 0;
      return `${count(value)} (${percent(value / sumOf(model.verdicts))})`;
    }), thresholds(model)]));
  if (!scored.length) return;
  const looks = { pass: ["#0072b2", ""], suspicious: ["#e69f00", "/"], failed: ["#d55e00", "x"] };
  const traces = VERDICTS.map((verdict) => ({
    type: "bar", orientation: "h", name: verdict,
    marker: { color: looks[verdict][0], pattern: { shape: looks[verdict][1] } },
    y: scored.map(([name]) => plain(name)),
    x: scored.map(([, model]) => (100 * (model.verdicts[verdict] ?? 0)) / sumOf(model.verdicts)),
  }));
  chart("verdict-chart", "Share of verdicts by model", traces,
    {
      barmode: "stack",
      xaxis: { ticksuffix: " %", range: [0, 100] },
      yaxis: { type: "category" },
    });
}

/** The threshold by the evidence there is: each set of detectors has its own. */
const thresholds = (model) => Object.entries(model.thresholds)
  .map(([evidence, value]) => `${evidence} ${number(value, 4)}`).join(", ") || "–";

const sumOf = (counts) => Object.values(counts).reduce((all, each) => all + each, 0);

/** Stage latencies over the last minute where there was traffic, else since the start. */
function showLatency(now, models) {
  const before = scrapes.find((scrape) => now.time_s - scrape.time_s <= WINDOW_S);
  let recent = true;
  const rows = models.flatMap(([name, model]) => STAGES.filter((stage) => model.stages[stage])
    .map((stage) => {
      const fresh = since(model.stages[stage], before.models[name]?.stages[stage]);
      const busy = before !== now && total(fresh) > 0;
      recent &&= busy || !total(model.stages[stage]);
      const shown = busy ? fresh : model.stages[stage];
      const [p50, p99] = [0.5, 0.99].map((q) => quantile(shown, q));
      return { name, stage, busy, count: total(shown), p50, p99 };
    })).filter((row) => row.count > 0);
  say(by("latency-period"), recent ? "The last minute."
    : "The last minute where there was traffic, else since the start.");
  table(by("latency-table"), "From the histograms: exact to the width of a bucket",
    ["Model", "Stage", ">Count", ">p50", ">p99"],
    rows.map((row) => [
      row.name, row.stage, count(row.count), milliseconds(row.p50), milliseconds(row.p99),
    ]));
  if (!rows.length) return;
  const names = rows.map((row) =>
    plain(models.length > 1 ? `${row.name}: ${row.stage}` : row.stage));
  const traces = [["p50", "circle"], ["p99", "diamond"]].map(([field, symbol], at) => ({
    name: field, mode: "markers", type: "scatter", y: names, x: rows.map((row) => row[field]),
    marker: { color: COLOURS[at], symbol, size: 10 },
  }));
  chart("latency-chart", "Latency by stage, p50 and p99 in milliseconds", traces,
    {
      xaxis: { type: "log", ticksuffix: " ms" },
      yaxis: { type: "category", autorange: "reversed" },
    });
}

function part(name, kind, text, more = "") {
  return el("li", {}, state(kind, text),
    el("span", { class: "long" }, name, more && ` – ${more}`));
}

function health(now, models) {
  const { status, totals, shared } = now;
  const all = status.workers_ready === status.workers;
  const refused = totals.config_last_reload_successful === 0;
  const quarantined = totals.quarantined_principals ?? 0;
  const up = shared?.state === "up";
  const parts = [
    part("Workers", all ? "good" : status.workers_ready ? "warn" : "bad",
      `${status.workers_ready} of ${status.workers}`,
      status.ready ? "taking requests" : "not taking requests"),
    part("Configuration", refused ? "bad" : "good", refused ? "refused" : "in force",
      `generation ${count(totals.config_generation)}`),
    shared ? part("Shared history", up ? "good" : "bad", up ? "up" : "down",
      up ? "" : shared.state)
      : part("Shared history", "good", "none", "this proxy remembers for itself"),
    part("Quarantine", quarantined ? "warn" : "good", count(quarantined), "principals"),
  ];
  if (totals.audit_dropped_total) {
    const lost = count(totals.audit_dropped_total);
    parts.push(part("Audit log", "bad", "behind", `${lost} lines lost`));
  }
  return [...parts, ...models.flatMap(([name, model]) => healthOf(name, model))];
}

function healthOf(name, model) {
  const detectors = Object.keys(model.circuits);
  const open = detectors.filter((detector) => model.circuits[detector]);
  const parts = [];
  if (detectors.length) {
    parts.push(part(`${name}: detectors`, open.length ? "bad" : "good",
      open.length ? `${open.length} left out` : "at work",
      (open.length ? open : detectors).join(", ")));
  }
  if (model.speculative !== null) {
    const wanted = model.policy?.dispatch === "speculative";
    parts.push(part(`${name}: dispatch`, wanted && !model.speculative ? "warn" : "good",
      model.speculative ? "speculative" : "sequential",
      wanted && !model.speculative ? "fell back: too many answers were void" : ""));
  }
  if (model.policy?.detectors.length) {
    const age = model.policy.calibration_age_hours;
    parts.push(part(`${name}: calibration`, age === null ? "warn" : "good",
      age === null ? "age unknown" : `${hours(age)} old`,
      age === null ? "its file cannot be read" : ""));
    parts.push(part(`${name}: policy`, "good", model.policy.mode,
      `${model.policy.action} at a false-positive rate of ${percent(model.policy.fpr)}`));
  }
  if (model.records !== null) {
    parts.push(part(`${name}: records`, "good", count(model.records), "samples kept"));
  }
  if (model.shadow.compared) {
    const { compared, disagreed } = model.shadow;
    parts.push(part(`${name}: shadow`, disagreed ? "warn" : "good", count(disagreed),
      `disagreements in ${count(compared)} samples`));
  }
  return parts;
}
