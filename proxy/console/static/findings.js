// What a false-positive rate would have done: tiles, tables and the chart of the explorer.

import { COLOURS, DASHES, NO_CHARTS, draw, plain, upright } from "./charts.js";
import { by, el, fill, say, state, table, tile } from "./elements.js";
import { between, count, milliseconds, number, percent } from "./figures.js";
import { above, changes, interval, nearest, share } from "./whatif.js";

const LISTED = 50;
const INTERVAL = "95 % Wilson interval";

/** What a place on the slider means, as one sentence to be heard. */
export function inWords(current, at) {
  const threshold = current.thresholds[at];
  const flagged = share(current.sorted, threshold);
  const caught = mean(caughtOf(current, threshold));
  return [
    `${percent(current.fprs[at])} false positives`,
    flagged === null ? "no live samples" : `${percent(flagged)} of live samples flagged`,
    caught === null ? "no evaluation" : `${percent(caught)} of attacks caught`,
  ].join(", ");
}

const tried = (side) => side.attacks.filter((attack) => attack.sorted.length);

const caughtOf = (side, threshold) => tried(side).map(({ sorted }) => share(sorted, threshold));

const mean = (values) =>
  (values.length ? values.reduce((all, each) => all + each, 0) / values.length : null);

/** The numbers at a place on the slider; cheap enough to run for every step of it. */
export function showFindings(current, candidate, at) {
  const now = current.policy.threshold;
  const threshold = current.thresholds[at];
  const beside = candidate && nearest(candidate.fprs, current.fprs[at]);
  const other = candidate && candidate.thresholds[beside];
  showTiles(current, at, threshold);
  showLive(current, candidate, [at, beside], [now, threshold, other]);
  showChanged(current, threshold);
  showEvaluation(current, candidate, [now, threshold, other]);
}

function showTiles(current, at, threshold) {
  const flagged = above(current.sorted, threshold);
  const samples = current.sorted.length;
  const caught = caughtOf(current, threshold);
  const least = Math.min(...caught);
  const worst = tried(current)[caught.indexOf(least)];
  fill(
    by("dial-tiles"),
    tile("Threshold", number(threshold, 4), `in force: ${number(current.policy.threshold, 4)}`),
    tile("Live samples flagged", percent(samples ? flagged / samples : null),
      samples ? `${count(flagged)} of ${count(samples)}; ${between(interval(flagged, samples))}`
        : "none recorded"),
    tile("Attacks caught", percent(mean(caught)),
      caught.length ? `mean of ${caught.length} kinds; least: ${worst.name} ${percent(least)}`
        : "no evaluation"),
    tile("Delay added", milliseconds(delay(current.purify, flagged, samples).mean),
      "mean over all live samples"),
  );
}

/** What purifying flagged samples costs, milliseconds; null where it was never measured. */
function delay({ p50, p99 }, flagged, samples) {
  return { p50, p99, mean: samples && p50 !== null ? (p50 * flagged) / samples : null };
}

/** What stands smaller below a figure. */
const aside = (text) => el("span", { class: "interval" }, text);

const columns = (candidate) => [">In force", ">At this rate", ...(candidate ? [">Candidate"] : [])];

function flaggedOf(sorted, threshold) {
  if (!sorted?.length || typeof threshold !== "number") return "–";
  const k = above(sorted, threshold);
  return [percent(k / sorted.length), aside(between(interval(k, sorted.length)))];
}

function showLive(current, candidate, [at, beside], [now, threshold, other]) {
  const { sorted } = current;
  by("live-note").hidden = sorted.length > 0;
  say(by("live-note"),
    "No live samples have been recorded yet: they come with traffic, in observe mode too.");
  by("live-table").hidden = sorted.length === 0;
  if (!sorted.length) return;
  const sides = [[current, now], [current, threshold], ...(candidate ? [[candidate, other]] : [])];
  const each = (tell) => sides.map(([side, limit]) => tell(side, limit));
  const unscored = current.live.unknown;
  const delayed = each((side, limit) => {
    const flagged = above(side.sorted, limit);
    const cost = delay(current.purify, flagged, side.sorted.length);
    return [count(flagged), aside(cost.p50 === null ? "time not known yet"
      : `by ${milliseconds(cost.p50)}, p99 ${milliseconds(cost.p99)}`)];
  });
  const without = unscored ? `; ${count(unscored)} without` : "";
  table(by("live-table"), `${count(sorted.length)} distinct samples with a score${without}`,
    ["", ...columns(candidate)],
    [
      ["Threshold", ...each((_, limit) => number(limit, 4))],
      [`Flagged (${INTERVAL})`, ...each((side, limit) => flaggedOf(side.sorted, limit))],
      ["Benign flagged, at most", percent(current.policy.fpr_upper), percent(current.upper[at]),
        ...(candidate ? [percent(candidate.upper[beside])] : [])],
      ["Judged otherwise than recorded",
        ...each((side, limit) => count(changes(side.live, limit).length))],
      ["Delayed by purifying", ...delayed],
    ]);
}

function showChanged(current, threshold) {
  const found = changes(current.live, threshold);
  by("changed").hidden = found.length === 0;
  const more = found.length > LISTED ? `, the first ${LISTED}` : "";
  const samples = found.length === 1 ? "sample" : "samples";
  say(by("changed").querySelector("summary"),
    `${count(found.length)} live ${samples} would be judged otherwise${more}`);
  fill(by("changed").querySelector("ol"), found.slice(0, LISTED).map(({ id, now }) =>
    el("li", {}, `${id}: ${now ? "passed, would be flagged" : "flagged, would pass"}`)));
}

function showEvaluation(current, candidate, [now, threshold, other]) {
  const evaluation = current.evaluation;
  by("attack-table").hidden = by("benign-kinds").hidden = !evaluation;
  if (!evaluation) {
    say(by("evaluation-note"), current.problem || "None yet: breakwater evaluate --config FILE "
      + `--model ${current.model} --data FILE.npz --out DIR makes one; then name DIR in the `
      + "model's evaluation: field.");
    return;
  }
  const date = evaluation.date.slice(0, 10) || "an unknown date";
  fill(by("evaluation-note"), [
    `Of ${date}. Attacks are those that succeeded undefended. `,
    ...(current.problem ? [state("warn", current.problem)] : []),
  ]);
  const beside = (kind, name) => candidate?.[kind].find((each) => each.name === name)?.sorted;
  const row = (kind, label, each) => [
    label,
    flaggedOf(each.sorted, now),
    flaggedOf(each.sorted, threshold),
    ...(candidate ? [flaggedOf(beside(kind, each.name), other)] : []),
  ];
  const missed = ({ sorted }) => aside(!sorted.length ? "none succeeded undefended"
    : `misses ${count(sorted.length - above(sorted, threshold))} of ${count(sorted.length)}`);
  table(by("attack-table"), `Attacks caught (${INTERVAL})`,
    ["Attack", "Threat", ...columns(candidate)],
    current.attacks.map((each) => {
      const [name, before, caught, ...others] = row("attacks", each.name, each);
      return [name, each.threat ?? "–", before, [caught, missed(each)].flat(), ...others];
    }));
  table(by("benign-table"), `Benign kinds flagged (${INTERVAL})`, ["Kind", ...columns(candidate)],
    current.benign.map((each) => row("benign", each.name, each)));
  const flagged = current.benign.map((each) => share(each.sorted, threshold) ?? 0);
  const most = Math.max(...flagged);
  by("benign-kinds").hidden = !flagged.length;
  say(by("benign-kinds").querySelector("summary"), `Benign kinds: ${flagged.length}; most flagged: `
    + `${current.benign[flagged.indexOf(most)]?.name}, ${percent(most)}`);
}

/** The chart: the share flagged at every rate. Drawn for new scores only; a line marks the rate. */
export async function drawFindings(current, candidate, fpr) {
  const others = candidate ? lines(candidate, " (candidate)", 1) : [];
  const traces = [...lines(current, "", 0), ...others];
  const bound = current.upper.map((each) => 100 * each);
  traces.push({
    name: "benign, at most",
    x: current.fprs,
    y: bound,
    mode: "lines",
    line: { color: "#8a8a8a", dash: "longdashdot" },
  });
  const narrow = matchMedia("(max-width: 40rem)").matches;
  const label = "Share flagged by false-positive rate: live samples, and attacks by threat";
  const drew = await draw(by("explorer-chart"), label, traces, {
    shapes: [upright(fpr)],
    xaxis: narrow ? { type: "log", tickformat: "~%", tickvals: [0.001, 0.01, 0.1] } : {
      type: "log", title: { text: "false-positive rate" }, tickformat: "~%",
      tickvals: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2],
    },
    yaxis: { range: [0, 101], ticksuffix: " %" },
    showlegend: true,
  });
  by("explorer-charts-note").hidden = drew;
  if (!drew) say(by("explorer-charts-note"), NO_CHARTS);
}

/** Live samples, and attacks by what their author knows: a line for each would be a thicket. */
function lines(side, suffix, symbols) {
  const threats = new Map();
  for (const each of side.attacks.filter((attack) => attack.sorted.length)) {
    threats.set(each.knows, [...(threats.get(each.knows) ?? []), each.sorted]);
  }
  const live = side.sorted.length ? [["live samples", [side.sorted]]] : [];
  return [...live, ...threats].map(([name, kinds], i) => ({
    name: plain((kinds.length > 1 ? `${name}, mean of ${kinds.length}` : name) + suffix),
    x: side.fprs,
    y: side.thresholds.map((threshold) =>
      100 * mean(kinds.map((sorted) => share(sorted, threshold)))),
    mode: symbols ? "lines+markers" : "lines",
    marker: { symbol: "circle-open", size: 6 },
    line: { color: COLOURS[i % COLOURS.length], dash: DASHES[i % DASHES.length], width: i ? 2 : 4 },
  }));
}
