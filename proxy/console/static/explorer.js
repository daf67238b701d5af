// The threshold explorer: one question to the proxy, then everything is worked out in the page.

import { mark } from "./charts.js";
import { changePolicy } from "./change.js";
import { ask } from "./client.js";
import { by, el, fill, say } from "./elements.js";
import { percent } from "./figures.js";
import { drawFindings, inWords, showFindings } from "./findings.js";
import { nearest, ordered } from "./whatif.js";

let current = null; // what the policy in force would do
let candidate = null; // what the one it is compared with would do
let chosen = null; // the model asked about
let parts = []; // the chosen model's detectors, as the configuration has them
let started = false;

export async function showExplorer() {
  start();
  try {
    const { models } = await ask("/api/overview");
    const names = Object.keys(models).filter((name) => models[name].policy?.detectors.length);
    offer(names);
    parts = models[chosen]?.policy.parts ?? [];
    if (names.length) await load();
    else {
      by("explorer").hidden = true;
      say(by("explorer-note"),
        "No model has detectors: give one in the configuration, then breakwater calibrate.");
    }
  } catch (error) {
    say(by("explorer-note"), error.message);
  }
}

function start() {
  if (started) return;
  started = true;
  by("model").addEventListener("change", () => {
    [chosen, current, candidate] = [by("model").value, null, null];
    showExplorer();
  });
  by("fpr").addEventListener("input", () => { moved(); });
  by("to-current").addEventListener("click", () => { toCurrent(); moved(); by("fpr").focus(); });
  by("compare").addEventListener("submit", (event) => { event.preventDefault(); compare(); });
  by("uncompare").addEventListener("click", () => {
    candidate = null;
    say(by("compare-note"), "");
    redraw();
  });
  by("apply").addEventListener("click", () => apply({ fpr: written() }));
  by("apply-candidate").addEventListener("click", () =>
    apply({ fpr: written(), ...candidate.settings }));
}

function offer(names) {
  if (!names.includes(chosen)) [chosen, current, candidate] = [names[0], null, null];
  fill(by("model"), names.map((name) => el("option", { value: name }, name)));
  by("model").value = chosen ?? "";
}

async function load() {
  say(by("explorer-note"), current ? "" : "Working it out…");
  const asked = chosen;
  try {
    const found = await ask("/api/explore", { model: asked, candidate: null });
    if (asked !== chosen) return; // another model was chosen meanwhile
    const before = current?.model === asked ? rate() : null;
    current = inForce(found);
    by("fpr").max = current.fprs.length - 1; // before its value, which it bounds
    if (before === null) {
      toCurrent();
      offerParts(current.policy);
    } else by("fpr").value = nearest(current.fprs, before);
    by("explorer").hidden = false;
    say(by("explorer-note"), "");
    redraw();
  } catch (error) {
    by("explorer").hidden = true;
    say(by("explorer-note"), error.message);
  }
}

const ROLES = { benign: "", unseen: " (kind never calibrated on)", ood: " (out of distribution)" };

/** A policy with its grid, and the scores it gives, in order. */
function side(policy, grid, live, evaluation) {
  const attacks = Object.entries(evaluation?.attacks ?? {});
  return {
    policy,
    ...withPlace(grid, policy),
    live,
    sorted: ordered(live.fused),
    evaluation,
    attacks: attacks
      .map(([name, { fused, threat = "", tuned_on: tuned }]) => ({
        name,
        knows: threat,
        threat: tuned ? `${threat}, learned from` : threat,
        sorted: ordered(fused),
      }))
      .sort((a, b) => a.knows.localeCompare(b.knows) || a.name.localeCompare(b.name)),
    benign: Object.entries(ROLES).flatMap(([role, note]) => Object.entries(evaluation?.[role] ?? {})
      .map(([name, fused]) => ({ name: `${name}${note}`, sorted: ordered(fused) }))),
  };
}

/** The grid with the policy's own rate in its place, so that the slider can stand there exactly. */
function withPlace({ fprs, thresholds, benign_upper: upper }, policy) {
  const bound = (threshold) => threshold ?? Infinity; // what JSON has no number for
  const points = fprs.map((fpr, at) => [fpr, bound(thresholds[at]), upper[at]]);
  if (!fprs.includes(policy.fpr)) {
    points.push([policy.fpr, bound(policy.threshold), policy.fpr_upper]);
  }
  points.sort((a, b) => a[0] - b[0]);
  return {
    fprs: points.map((each) => each[0]),
    thresholds: points.map((each) => each[1]),
    upper: points.map((each) => each[2]),
  };
}

const inForce = (found) => ({
  ...side(found.current, found, found.live, found.evaluation),
  model: found.model,
  problem: found.evaluation_problem,
  purify: found.purify_ms,
});

const compared = ({ candidate: other, live }) =>
  side(other, other, { ...live, ...other.live }, other.evaluation);

const rate = () => current.fprs[Number(by("fpr").value)];

/** The rate as a person would write it; never below the least that the calibration supports. */
function written() {
  const short = Number(rate().toPrecision(3));
  return short < current.fprs[0] ? rate() : short;
}

function toCurrent() {
  by("fpr").value = nearest(current.fprs, current.policy.fpr);
}

/** Everything again: other scores. */
function redraw() {
  by("uncompare").hidden = by("apply-candidate").hidden = candidate === null;
  drawFindings(current, candidate, rate());
  moved();
}

/** Another rate: numbers only, at once. */
function moved() {
  const fpr = rate();
  const at = Number(by("fpr").value);
  say(by("fpr-shown"), percent(fpr));
  by("fpr").setAttribute("aria-valuetext", inWords(current, at));
  by("apply").disabled = fpr === current.policy.fpr;
  mark(by("explorer-chart"), fpr);
  showFindings(current, candidate, at);
}

function offerParts(policy) {
  fill(by("subset"), policy.detectors.map((name) => el("label", { class: "choice" },
    el("input", { type: "checkbox", value: name, checked: true }), name)));
  by("cascade").checked = Boolean(policy.cascade);
}

async function compare() {
  const names = [...by("subset").querySelectorAll("input:checked")].map((input) => input.value);
  if (!names.length) {
    say(by("compare-note"), "Choose at least one detector.");
    return;
  }
  const wanted = { detectors: names };
  const cascade = by("cascade").checked;
  if (cascade !== Boolean(current.policy.cascade)) wanted.cascade = cascade ? {} : null;
  say(by("compare-note"), "Working it out…");
  const asked = chosen;
  try {
    const found = await ask("/api/explore", { model: asked, candidate: wanted });
    if (asked !== chosen) return;
    current = inForce(found);
    candidate = { ...compared(found), settings: wanted };
    say(by("compare-note"),
      `Compared with ${names.join(", ")}${cascade ? " in a cascade" : ""}.`);
    redraw();
  } catch (error) {
    say(by("compare-note"), error.message);
  }
}

async function apply(settings) {
  const name = chosen;
  const applied = await changePolicy({
    title: `Change the policy of ${name}`,
    sure: `Put this in force for ${name} now.`,
    model: name,
    settings: forFile(settings),
  });
  if (!applied) return;
  [current, candidate] = [null, null];
  await load();
}

/** Detectors as the configuration file lists them: with the parameters they have there. */
function forFile(settings) {
  if (!settings.detectors) return settings;
  return { ...settings, detectors: parts.filter((part) => settings.detectors.includes(part.name)) };
}
