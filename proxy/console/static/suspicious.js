// Suspicious requests, newest first, as they come.

import { askForToken } from "./token.js";
import { ask, follow, hasToken, pause } from "./client.js";
import { by, el, fill, say, state, table } from "./elements.js";
import { count, number, time } from "./figures.js";

const SHOWN = 100;
const BASE64 = /^[A-Za-z0-9+/]+=*$/;

const rows = new Map(); // by id, newest last
let paused = [];
let arrived = 0;

export async function startSuspicious(connection) {
  by("pause").addEventListener("click", togglePause);
  followRecords(connection);
  followStandings();
}

function followRecords(connection) {
  follow("/api/watch", {
    onEvent: (record) => { add(record, true); },
    onState: (up, why) => {
      const node = by("following");
      node.className = `state ${up ? "good" : "bad"}`;
      say(node, up ? "Live." : "Not live.");
      connection("watch", up ? "" : why);
      if (up) load();
    },
  });
}

/** What was recorded before the page followed, or while it could not. */
async function load() {
  try {
    const { records, principals } = await ask(`/api/suspicious?limit=${SHOWN}`);
    records.reverse().forEach((record) => add(record, false));
    say(by("records-note"), "");
    showStandings(principals);
  } catch (error) {
    say(by("records-note"), error.message);
  }
  by("records-empty").hidden = rows.size > 0;
}

async function followStandings() {
  for (;;) {
    await pause(10_000);
    if (!document.hidden && !by("suspicious-page").hidden) await load();
  }
}

function togglePause() {
  const isPaused = by("pause").getAttribute("aria-pressed") !== "true";
  by("pause").setAttribute("aria-pressed", String(isPaused));
  if (isPaused) return;
  const held = paused;
  paused = [];
  held.forEach(([record, isNew]) => add(record, isNew));
}

function add(record, isNew) {
  if (rows.has(record.id)) return;
  if (by("pause").getAttribute("aria-pressed") === "true") {
    if (!paused.some(([held]) => held.id === record.id)) paused.push([record, isNew]);
    paused = paused.slice(-SHOWN);
    return;
  }
  const node = row(record, isNew);
  rows.set(record.id, node);
  place(node, record.time_s);
  while (rows.size > SHOWN) {
    const last = by("records").lastElementChild;
    rows.delete(last.dataset.id);
    last.remove();
  }
  by("records-empty").hidden = true;
  if (isNew) announce();
}

/** Newest first: several workers' records come nearly, not quite, in order. */
function place(node, timeS) {
  let next = by("records").firstElementChild;
  while (next !== null && Number(next.dataset.time) > timeS) next = next.nextElementSibling;
  by("records").insertBefore(node, next);
}

const TOLD_EVERY_MS = 5000;
let untold = 0;

/** Count what has come; a screen reader is told once in a while, of all that came meanwhile. */
function announce() {
  arrived += 1;
  say(by("arrivals"), `${count(arrived)} since this page was opened.`);
  untold += 1;
  if (untold > 1) return;
  setTimeout(() => {
    say(by("heard"), `${count(untold)} new; ${count(arrived)} in all.`);
    untold = 0;
  }, TOLD_EVERY_MS);
}

const pair = (name, value) => el("span", { class: "pair" }, el("b", {}, `${name} `), value);

function row(record, isNew) {
  const failed = record.verdict === "failed";
  const node = el("li", { class: `record ${failed ? "failed" : ""} ${isNew ? "fresh" : ""}` });
  node.dataset.id = record.id;
  node.dataset.time = record.time_s;
  fill(node, thumbnail(record), el("div", { class: "facts" },
    el("p", { class: "head" },
      el("time", { datetime: new Date(1000 * record.time_s).toISOString() }, time(record.time_s)),
      state(failed ? "bad" : record.verdict === "pass" ? "good" : "warn", record.verdict),
      pair("model", [record.model, record.version].filter(Boolean).join(" version ")),
      pair("action", record.action), pair("outcome", record.outcome)),
    el("p", {}, pair("principal", record.principal || "–"),
      record.client_id ? pair("request", record.client_id) : null),
    score(record), evidence(record), series(record), shadow(record), labels(record)));
  return node;
}

function thumbnail(record) {
  if (typeof record.thumbnail !== "string" || !BASE64.test(record.thumbnail)) return null;
  return el("img", { class: "thumbnail", src: `data:image/png;base64,${record.thumbnail}`,
    alt: "What was sent, made smaller", width: 72, height: 72 });
}

/** The score as a bar that ends beyond the threshold, with both numbers beside it. */
function score(record) {
  const { score: value, threshold } = record;
  if (typeof value !== "number") {
    return el("p", {}, pair("score", `none: ${record.failure || record.reason || "not scored"}`));
  }
  const low = Math.min(0, value, threshold ?? 0);
  const high = Math.max(value, threshold ?? value) * 1.2 || 1;
  const bar = el("meter", {
    min: low, max: high, value, low: threshold, high: threshold, optimum: low,
    "aria-label": "Fused score; the bar changes colour beyond the threshold",
  });
  const side = value <= threshold ? "up to" : "above";
  return el("p", {}, bar,
    ` score ${number(value, 4)}, ${side} the threshold ${number(threshold, 4)}`);
}

function evidence(record) {
  const values = Object.entries(record.p_values ?? {}).sort((a, b) => (a[1] ?? 0) - (b[1] ?? 0));
  if (!values.length) return null;
  return el("p", {}, values.map(([detector, p]) => pair(detector, `p = ${number(p, 2)}`)),
    record.reason ? pair("weighs most", record.reason) : null);
}

function series(record) {
  if (!record.chain && !record.alarm && !record.quarantined) return null;
  return el("p", {}, record.alarm ? state("bad", "alarm") : null, " ",
    record.chain ? `one of ${count(record.chain)} related queries` : "",
    record.quarantined ? el("span", {}, " ", state("warn", "in quarantine")) : null);
}

function shadow(record) {
  if (!record.shadow) return null;
  const would = record.shadow === record.verdict ? "another action" : record.shadow;
  return el("p", {}, state("warn", "shadow policy disagrees"), `: ${would}`);
}

function labels(record) {
  const said = el("span", { role: "status" });
  const buttons = ["benign", "adversarial"].map((label) => el("button", {
    type: "button", class: "small", "aria-pressed": String(record.label === label),
    onclick: () => give(record, label, buttons, said),
  }, label));
  return el("p", { class: "actions" }, el("span", {}, "This was:"), buttons, said);
}

/** Label a sample, or take the label back by giving it again. */
async function give(record, label, buttons, said) {
  if (!hasToken() && !(await askForToken())) return;
  const wanted = record.label === label ? "" : label;
  try {
    await ask("/api/label", { id: record.id, label: wanted });
    record.label = wanted;
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.textContent === wanted));
    }
    say(said, wanted ? `labelled ${wanted}` : "label taken back");
  } catch (error) {
    say(said, `not labelled: ${error.message}`);
    if (error.status === 401) await askForToken();
  }
}

function showStandings(principals) {
  const minutes = (each) => Math.ceil(each.quarantined_for_s / 60);
  table(by("principals"),
    principals.length ? "Who raised alarms, latest first" : "Nobody has raised an alarm.",
    ["Principal", "Model", ">Longest chain", ">Alarms", "Quarantine", "Last alarm"],
    principals.map((each) => [
      each.principal, each.model, count(each.longest_chain), count(each.alarms),
      minutes(each) > 0 ? state("warn", `${minutes(each)} more minutes`) : "none",
      time(each.last_alarm),
    ]));
}
